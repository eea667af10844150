"""Softmax, log-softmax and their gradients: host functions of csrc/cuda/softmax.cu. Arrays are (outer, n, inner)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import ctype, kernel
from .rows import rows

if TYPE_CHECKING:
    from .device import Device


def _along(gpu: Device, op: str, *arrays: Any) -> None:
    outer, n, inner = arrays[0].shape
    if n == 0:
        return
    team, items, grid, block = rows(outer, n, inner)
    expression = f"{op}<{ctype(arrays[0].dtype)}, {team}, {items}>"
    gpu.launch("softmax", expression, grid, block, *arrays, outer, n, inner)


@kernel
def softmax(gpu: Device, x: Any, y: Any) -> None:
    _along(gpu, "softmax", x, y)


@kernel
def softmax_backward(gpu: Device, dy: Any, y: Any, dx: Any) -> None:
    _along(gpu, "softmax_backward", dy, y, dx)


@kernel
def log_softmax(gpu: Device, x: Any, y: Any) -> None:
    _along(gpu, "log_softmax", x, y)


@kernel
def log_softmax_backward(gpu: Device, dy: Any, y: Any, dx: Any) -> None:
    _along(gpu, "log_softmax_backward", dy, y, dx)
