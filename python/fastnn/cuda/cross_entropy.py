"""Cross-entropy and nll_loss with their gradients: host functions of csrc/cuda/cross_entropy.cu. Scores are (N, C, S).

A label out of range raises on the CPU. Here nobody waits for the device to look: nothing is read by such a label, and
its row's loss and gradient, with them the sum or mean, are NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import blocks, ctype, kernel
from .rows import Rows, rows

if TYPE_CHECKING:
    from .device import Device

PIECE = 8192  # losses that one block adds up, as in cross_entropy.cu
WHOLE = 256  # rows of at most 64 scores that one block computes and adds up


def _rows(shape: tuple[int, int, int]) -> tuple[Rows, int]:
    """The cut, and how many groups of rows a block takes: a small batch is left to one block, which sums at its end.
    Only short rows are held in registers: from the first-level cache a longer one is read as quickly."""
    N, C, S = shape
    cut = rows(N, C, S)
    if cut.items != 2:
        return cut._replace(items=0), 1
    if N > WHOLE:
        return cut, 1
    warps = min(max(N, 1), 32)
    return Rows(32, 2, 1, 32 * warps), -(-N // warps)


def _add_up(
    gpu: Device, grid: int, loss: Any, target: Any, weight: Any, y: Any, divisor: Any, C: int, mean: int, ignore: int
) -> None:
    """What the one block of a small batch has done already: y from the losses, and the divisor."""
    if grid == 1:
        return
    t = ctype(loss.dtype)
    pieces = -(-loss.size // PIECE) if y is not None else 0
    partial = gpu.empty((pieces, 2), "float64")
    if pieces > 0:
        args = (loss, target, weight, partial, y, divisor, loss.size, C, mean, ignore)
        gpu.launch("cross_entropy", f"sum_losses<{t}>", pieces, 256, *args)
    if pieces != 1:
        gpu.launch("cross_entropy", f"finish_losses<{t}>", 1, 256, partial, y, divisor, pieces, mean)


def _mixing(label_smoothing: float, C: int) -> tuple[float, float]:
    """What of the target is kept, and what every class gets."""
    return 1 - label_smoothing, label_smoothing / max(C, 1)


@kernel
def cross_entropy(
    gpu: Device,
    x: Any,
    target: Any,
    weight: Any,
    loss: Any,
    stats: Any,
    y: Any,
    divisor: Any,
    mean: int,
    ignore_index: int,
    label_smoothing: float,
) -> None:
    (team, items, grid, block), turns = _rows(x.shape)
    args = (x, target, weight, loss, stats, y, divisor, *x.shape, turns, mean, ignore_index)
    expression = f"cross_entropy<{ctype(x.dtype)}, {team}, {items}>"
    gpu.launch("cross_entropy", expression, grid, block, *args, *_mixing(label_smoothing, x.shape[1]))
    _add_up(gpu, grid, loss, target, weight, y, divisor, x.shape[1], mean, ignore_index)


@kernel
def cross_entropy_backward(
    gpu: Device,
    dy: Any,
    x: Any,
    target: Any,
    weight: Any,
    stats: Any,
    divisor: Any,
    dx: Any,
    ignore_index: int,
    label_smoothing: float,
) -> None:
    team, _, grid, block = rows(*x.shape)
    args = (dy, x, target, weight, stats, divisor, dx, *x.shape, dy.size != 1, ignore_index)
    expression = f"cross_entropy_backward<{ctype(x.dtype)}, {team}>"
    gpu.launch("cross_entropy", expression, grid, block, *args, *_mixing(label_smoothing, x.shape[1]))


@kernel
def cross_entropy_soft(
    gpu: Device,
    x: Any,
    target: Any,
    weight: Any,
    loss: Any,
    stats: Any,
    y: Any,
    divisor: Any,
    mean: int,
    label_smoothing: float,
) -> None:
    team, _, grid, block = rows(*x.shape)
    args = (x, target, weight, loss, stats, y, divisor, *x.shape, mean)
    expression = f"cross_entropy_soft<{ctype(x.dtype)}, {team}>"
    gpu.launch("cross_entropy", expression, grid, block, *args, *_mixing(label_smoothing, x.shape[1]))
    _add_up(gpu, grid, loss, None, None, y, divisor, x.shape[1], mean, 0)


@kernel
def cross_entropy_soft_backward(
    gpu: Device,
    dy: Any,
    x: Any,
    target: Any,
    weight: Any,
    stats: Any,
    divisor: Any,
    dx: Any,
    label_smoothing: float,
) -> None:
    team, _, grid, block = rows(*x.shape)
    args = (dy, x, target, weight, stats, divisor, dx, *x.shape, dy.size != 1)
    expression = f"cross_entropy_soft_backward<{ctype(x.dtype)}, {team}>"
    gpu.launch("cross_entropy", expression, grid, block, *args, *_mixing(label_smoothing, x.shape[1]))


@kernel
def nll_loss(
    gpu: Device, x: Any, target: Any, weight: Any, loss: Any, y: Any, divisor: Any, mean: int, ignore_index: int
) -> None:
    grid = 1 if 0 < loss.size <= 4096 else blocks(loss.size)
    args = (x, target, weight, loss, y, divisor, *x.shape, mean, ignore_index)
    gpu.launch("cross_entropy", f"nll_loss<{ctype(x.dtype)}>", grid, 256, *args)
    _add_up(gpu, grid, loss, target, weight, y, divisor, x.shape[1], mean, ignore_index)


@kernel
def nll_loss_backward(gpu: Device, dy: Any, target: Any, weight: Any, divisor: Any, dx: Any, ignore_index: int) -> None:
    team, _, grid, block = rows(*dx.shape)
    args = (dy, target, weight, divisor, dx, *dx.shape, dy.size != 1, ignore_index)
    gpu.launch("cross_entropy", f"nll_loss_backward<{ctype(dx.dtype)}, {team}>", grid, block, *args)
