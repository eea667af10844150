"""Losses per element with their gradients: host functions of csrc/cuda/loss.cu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import ctype, kernel
from .shapes import grid
from .table import LOSSES

if TYPE_CHECKING:
    from .device import Device

PIECE = 8192  # losses that one block adds up, as in loss.cu


@kernel
def pointwise_loss(
    gpu: Device,
    x: Any,
    target: Any,
    weight: Any,
    positive: Any,
    y: Any,
    kind: int,
    reduced: int,
    parameter: float,
    divisor: float,
) -> None:
    t = ctype(x.dtype)
    formula = f"{LOSSES[kind]}_loss<{t}>"
    if not reduced:
        args = (x, target, weight, positive, y, x.size, parameter)
        gpu.launch("loss", f"loss_each<{t}, {formula}>", *grid(x.size), *args)
        return
    pieces = -(-x.size // PIECE)
    partial = gpu.empty((pieces,), "float64")
    if pieces > 0:
        args = (x, target, weight, positive, partial, x.size, parameter)
        gpu.launch("loss", f"loss_sum<{t}, {formula}>", pieces, 256, *args)
    gpu.launch("loss", f"finish_loss<{t}>", 1, 256, partial, y, pieces, divisor)


@kernel
def pointwise_loss_backward(
    gpu: Device,
    dy: Any,
    x: Any,
    target: Any,
    weight: Any,
    positive: Any,
    dx: Any,
    dtarget: Any,
    kind: int,
    reduced: int,
    parameter: float,
    divisor: float,
) -> None:
    t, f = ctype(x.dtype), LOSSES[kind]
    args = (dy, x, target, weight, positive, dx, dtarget, x.size, reduced, parameter, divisor)
    gpu.launch("loss", f"loss_backward<{t}, {f}_slope<{t}>, {f}_target_slope<{t}>>", *grid(x.size), *args)
