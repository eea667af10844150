"""Where a kernel runs: the compiled core for NumPy arrays, ../cuda for CuPy's. No op's logic.

What else a kernel's wrapper asks of a device stands here too, so that the rest of this folder works for both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .. import _core

if TYPE_CHECKING:
    from ..cuda.device import Device

Array = NDArray[Any]
"""A NumPy array (or a CuPy array: the two share the interface that is used here)."""


class Kernels(Protocol):
    """The kernel table: each name is a function of arrays, then numbers, that writes its output arrays."""

    def __getattr__(self, name: str) -> Callable[..., None]: ...


_cpu = cast(Kernels, _core.kernels)

attempt: Any = _core.attempt
"""The same table without detours: ``attempt.name(*inputs, *outputs, *numbers)`` makes the outputs and returns them, or
does nothing and returns None where an array has to be checked or copied first. An output is given by its shape; where
the kernel's spec describes them all (``y=x``), they are left out. In-place work takes arrays and returns True."""


def backend(op: str, x: Array) -> Kernels:
    """The kernel table for the device that holds ``x``."""
    gpu = only.get(type(x))
    if gpu is not None:
        return cast(Kernels, gpu.kernels)
    if isinstance(x, np.ndarray):
        return _cpu
    gpu = device_of(x)
    if gpu is None:
        raise TypeError(f"{op}: expected a NumPy or CuPy array, got {type(x).__name__}; use numpy.asarray(...)")
    return cast(Kernels, gpu.kernels)


only: dict[type, Device] = {}
"""The device of all arrays of a type, where there is one alone (``share`` has it filled in): asked 200 times a step."""


def device_of(x: Any) -> Device | None:
    """The GPU that holds ``x``; None for what is in main memory, or no array."""
    gpu = only.get(type(x))
    if gpu is not None:
        return gpu
    return None if isinstance(x, np.ndarray) else _holder(x)


def _first_holder(x: Any) -> Device | None:
    """Where fastnn.cuda is imported: when the first array that is not NumPy's comes."""
    global _holder
    from ..cuda.device import holder, share

    share(only)
    _holder = holder
    return holder(x)


_holder = _first_holder


_ANYWHERE = nullcontext()
_alone: set[type] = {np.ndarray}  # the types of arrays that are all on one device


def on(x: Any) -> AbstractContextManager[Any]:
    """A context in which CuPy's own functions and operators may take ``x`` and make arrays beside it: they work on
    CuPy's current device, which with several GPUs may be another. Our kernels and ``empty`` need none."""
    if x.__class__ in _alone or (gpu := device_of(x)) is None:
        return _ANYWHERE
    if gpu.several:
        return gpu.current()
    _alone.add(x.__class__)
    return _ANYWHERE


def namespace(x: Any) -> Any:
    """NumPy; or, for an array on a GPU, what has NumPy's names there (cuda/arrays.py)."""
    gpu = device_of(x)
    return np if gpu is None else gpu.arrays


def place(x: Any) -> str:
    """Where an array is: ``"cpu"`` or ``"cuda:<number>"``."""
    gpu = device_of(x)
    return "cpu" if gpu is None else gpu.label


_HOST = np.empty(0, np.float32)


def here(op: str, device: str | None) -> Array:
    """An empty array that stands for a device (None: the CPU), to be ``like`` in ``empty``; raises for what is none."""
    if device is None:
        return _HOST
    if not isinstance(device, str):
        raise TypeError(f"{op}: 'device' must be a string such as 'cpu' or 'cuda', got {type(device).__name__}")
    if device == "cpu":
        return _HOST
    from ..cuda.device import named

    try:
        return named(device).here
    except (ImportError, RuntimeError, ValueError) as error:
        raise type(error)(f"{op}: {error}") from None


def moved(x: Array, like: Array) -> Array:
    """``x`` on the device of ``like``: itself where it is there already, else a copy."""
    gpu = device_of(like)
    if gpu is None:
        return x if isinstance(x, np.ndarray) else x.get()
    if gpu.holds(x):
        return x
    if (other := device_of(x)) is not None:  # between GPUs CuPy copies what is contiguous
        x = other.arrays.ascontiguousarray(x)
    with gpu.current():
        return gpu.xp.asarray(x)


def zeros(shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """An array of zeros on the device of ``like``."""
    y = empty(shape, like, dtype)
    with on(y):
        y[...] = 0
    return y


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays may share memory."""
    gpu = device_of(a)
    if gpu is None or not isinstance(b, gpu.array_type):
        return gpu is None and isinstance(b, np.ndarray) and np.may_share_memory(a, b)
    return bool(gpu.xp.may_share_memory(a, b))


@lru_cache(maxsize=512)
def input_names(kernel: str) -> tuple[str, ...]:
    """What the kernel's spec calls its input arrays."""
    parts = _core.specs[kernel].split("->")[0].split(",")
    return tuple(part.strip().rstrip("?").partition("=")[0] for part in parts)


def empty(shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """An uninitialised C-contiguous array on the device of ``like``, from memory that is reused."""
    dtype = like.dtype if dtype is None else np.dtype(dtype)
    if (gpu := only.get(type(like))) is not None and not gpu.several:
        return gpu.xp.empty(shape, dtype)
    if not isinstance(like, np.ndarray) and (gpu := device_of(like)) is not None:
        if not gpu.several:
            return gpu.xp.empty(shape, dtype)
        with gpu.current():
            return gpu.xp.empty(shape, dtype)
    try:
        return _core.empty(shape, dtype)
    except (MemoryError, OverflowError, ValueError):
        size = prod(shape) * dtype.itemsize
        raise MemoryError(
            f"cannot allocate {size} bytes ({size / 2**30:.4g} GiB) for an array of shape {shape} {dtype}"
        ) from None
