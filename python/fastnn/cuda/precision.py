"""How precisely matrix products and convolutions of float32 compute on a GPU: nothing is lowered unasked.

"highest" is float32 throughout; "high" adds three products of operands split in two TF32 parts (3xTF32); "medium"
rounds operands to TF32; under ``autocast("bfloat16")`` they are rounded to bfloat16. Sums are float32 in all of them,
and so are the arrays. float64, and the CPU, compute as precisely as they can. Host functions read ``precision()``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .device import Device

__all__ = ["autocast", "get_float32_matmul_precision", "precision", "precision_on", "set_float32_matmul_precision"]

PRECISIONS = ("highest", "high", "medium")


class _State(threading.local):
    matmul = "highest"
    lowered: str | None = None


_state = _State()


def set_float32_matmul_precision(precision: str) -> None:
    """Choose ``"highest"`` (float32, the default), ``"high"`` (3xTF32) or ``"medium"`` (TF32) for this thread.

    It holds for matrix products and convolutions of float32 on a GPU; on the CPU it changes nothing. Under "high", an
    infinite operand gives NaN where float32 may give an infinity.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"set_float32_matmul_precision: 'precision' must be 'highest', 'high' or 'medium', got {precision!r}"
        )
    _state.matmul = precision


def get_float32_matmul_precision() -> str:
    """What ``set_float32_matmul_precision`` chose in this thread; "highest" at first."""
    return _state.matmul


class autocast:  # noqa: N801 (PyTorch's name)
    """Context manager and decorator under which operands of matrix products and convolutions are rounded to bfloat16.

    On a GPU, in this thread; sums, results and parameters stay float32. ``enabled=False`` turns an outer one off. The
    gradients of what runs inside are computed by ``backward()``: put that inside too for the same rounding there.
    """

    def __init__(self, dtype: str = "bfloat16", enabled: bool = True) -> None:
        if dtype != "bfloat16":
            raise ValueError(f"autocast: 'dtype' must be 'bfloat16', got {dtype!r}")
        self._wanted = dtype if enabled else None
        self._before: list[str | None] = []

    def __enter__(self) -> None:
        self._before.append(_state.lowered)
        _state.lowered = self._wanted

    def __exit__(self, *exception: object) -> None:
        _state.lowered = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with autocast(enabled=self._wanted is not None):
                return function(*args, **kwargs)

        return wrapped


def precision() -> str:
    """What holds in this thread now: "highest", "high", "medium" or "bfloat16"."""
    return _state.lowered or _state.matmul


def precision_on(gpu: Device, op: str, dtype: Any) -> str:
    """The precision for arrays of ``dtype`` on ``gpu``: "highest" for float64; an error where it cannot be had."""
    wanted = precision() if dtype.char == "f" else "highest"
    if wanted != "highest" and gpu.arch < 80:
        raise RuntimeError(
            f"{op}: precision {wanted!r} needs tensor cores of compute capability 8.0 or newer, {gpu.label} has "
            f'{gpu.arch / 10}; use set_float32_matmul_precision("highest"), and no autocast'
        )
    return wanted
