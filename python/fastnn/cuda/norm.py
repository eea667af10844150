"""Batch norm and layer norm: host functions of csrc/cuda/norm.cu.

Batch norm in training is two or three launches: sums of each channel (in pieces where channels are few and long), their
totals, the result. Where planes are small the channels are walked over as columns of (N, C * S). Next: shapes.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .launch import ctype, kernel
from .shapes import LIMIT, cut, divider, grid, pieces, width

if TYPE_CHECKING:
    from .device import Device

WARP = 32
SMALL = 32  # elements of a plane below which channels are columns
FULL = 1024  # blocks that keep a large device busy
COLUMNS = 256  # threads of a block over columns: 32 columns, every eighth row
LONG_ROW = 1024  # elements of a row from which on layer norm gives it a block; shorter ones get a warp
ROWS = 128  # threads of a block whose warps have a row (or, of totals, a channel) each


def _warps(count: int) -> tuple[int, int]:
    """Blocks and threads for ``count`` warps."""
    return -(-count * WARP // ROWS), ROWS


class Sums(NamedTuple):
    """How the sums of each channel are launched."""

    by_columns: bool
    wide: int  # elements at once
    grid: tuple[int, int]
    threads: int
    parts: int  # pieces
    length: int  # elements (by columns: images) of a piece
    planes: tuple[int, int, int, int]  # struct Planes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pieces' sums."""
        _, c, s, _ = self.planes
        return (self.parts, c, s if self.by_columns else 1, 2)


def _sums(op: str, x: Any, *more: Any) -> Sums:
    return _plan(op, x.shape, width(x.shape[2], x, *more))


@lru_cache(maxsize=512)
def _plan(op: str, shape: tuple[int, int, int], wide: int) -> Sums:
    n, c, s = shape
    if s >= LIMIT // 2 or c * s >= LIMIT:
        raise ValueError(f"{op}: planes of {s} elements, {c * s} of one image, are more than CUDA kernels take")
    planes = (n, c, s, divider(s))
    if s < SMALL:
        blocks = -(-c * s // WARP)
        count, length = pieces(n, 64, 8, -(-FULL // blocks))
        return Sums(True, 1, (blocks, count), COLUMNS, count, length, planes)
    count, length = pieces(n * s, 8192, 1024, -(-FULL // c))
    threads = min(256, -(-min(length, n * s) // (WARP * wide)) * WARP)
    return Sums(False, wide, (c, count), threads, count, length, planes)


def _images(op: str, n: int, size: int, *arrays: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """For each launch: how many elements, and the parts of the arrays (N, C, S)."""
    for i, j in cut(op, n, size):
        yield (j - i) * size, arrays if j - i == n else tuple(a[i:j] for a in arrays)


@kernel
def batch_norm(gpu: Device, x: Any, weight: Any, bias: Any, y: Any, mean: Any, var: Any, eps: float) -> None:
    if x.size == 0:
        return
    t, how = ctype(x.dtype), _sums("batch_norm", x)
    rest = gpu.empty(mean.shape, x.dtype)
    results = (mean, var, rest, how.planes)
    apart = how.by_columns or how.parts > 1
    sums = gpu.empty(how.shape, "float64") if apart else None
    if how.by_columns:
        name = f"batch_norm_column_sums<{t}>"
        gpu.launch("norm", name, how.grid, how.threads, x, sums, how.planes, how.length)
    else:
        name = f"batch_norm_sums<{t}, {how.wide}>"
        gpu.launch("norm", name, how.grid, how.threads, x, sums, *results, how.length)
    if apart:
        name = f"batch_norm_moments<{t}>"
        gpu.launch("norm", name, *_warps(x.shape[1]), x, sums, *results, how.parts, how.shape[2])
    _apply(gpu, "batch_norm", x, mean, var, rest, weight, bias, y, eps)


@kernel
def batch_norm_apply(gpu: Device, x: Any, mean: Any, var: Any, weight: Any, bias: Any, y: Any, eps: float) -> None:
    _apply(gpu, "batch_norm_apply", x, mean, var, None, weight, bias, y, eps)


def _apply(
    gpu: Device, op: str, x: Any, mean: Any, var: Any, rest: Any, weight: Any, bias: Any, y: Any, eps: float
) -> None:
    n, c, s = x.shape
    wide = width(s, x, y)
    name, by = f"batch_norm_apply<{ctype(x.dtype)}, {wide}>", (divider(s // wide), divider(c))
    for size, (from_x, to_y) in _images(op, n, c * s, x, y):
        packs = size // wide
        gpu.launch("norm", name, *grid(packs), from_x, mean, var, rest, weight, bias, to_y, packs, c, *by, eps)


@kernel
def batch_norm_backward(
    gpu: Device,
    dy: Any,
    x: Any,
    mean: Any,
    var: Any,
    weight: Any,
    dx: Any,
    dweight: Any,
    dbias: Any,
    eps: float,
    training: int,
) -> None:
    if x.size == 0:
        dweight[...] = 0
        dbias[...] = 0
        return
    t, how = ctype(x.dtype), _sums("batch_norm_backward", x, dy)
    apart = how.by_columns or how.parts > 1
    sums = gpu.empty(how.shape, "float64") if apart else None
    if how.by_columns:
        name = f"batch_norm_backward_column_sums<{t}>"
        gpu.launch("norm", name, how.grid, how.threads, dy, x, mean, sums, how.planes, how.length)
    else:
        name, results = f"batch_norm_backward_sums<{t}, {how.wide}>", (dweight, dbias)
        gpu.launch("norm", name, how.grid, how.threads, dy, x, mean, var, sums, *results, how.planes, how.length, eps)
    n, c, s = x.shape
    if apart:
        name = f"batch_norm_backward_weight<{t}>"
        gpu.launch("norm", name, *_warps(c), sums, var, dweight, dbias, how.planes, how.parts, how.shape[2], eps)
    wide = width(s, dy, x, dx)
    name, moments = f"batch_norm_backward<{t}, {wide}>", (mean, var, weight, dweight, dbias)
    numbers = (c, divider(s // wide), divider(c), n * s, eps, training)
    for size, (from_dy, from_x, to_dx) in _images("batch_norm_backward", n, c * s, dy, x, dx):
        packs = size // wide
        gpu.launch("norm", name, *grid(packs), from_dy, from_x, *moments, to_dx, packs, *numbers)


def _rows(n: int, rows: int) -> tuple[int, tuple[int, int]]:
    """Lanes of a row, and the grid of ``rows``."""
    return (256, (rows, 256)) if n > LONG_ROW else (WARP, _warps(rows))


@kernel
def layer_norm(gpu: Device, x: Any, weight: Any, bias: Any, y: Any, mean: Any, rstd: Any, eps: float) -> None:
    rows, n = x.shape
    lanes, blocks = _rows(n, rows)
    name = f"layer_norm<{ctype(x.dtype)}, {width(n, x, weight, bias, y)}, {lanes}>"
    gpu.launch("norm", name, *blocks, x, weight, bias, y, mean, rstd, rows, n, eps)


@kernel
def layer_norm_backward(gpu: Device, dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, dx: Any) -> None:
    rows, n = x.shape
    lanes, blocks = _rows(n, rows)
    name = f"layer_norm_backward<{ctype(x.dtype)}, {width(n, dy, x, weight, dx)}, {lanes}>"
    gpu.launch("norm", name, *blocks, dy, x, mean, rstd, weight, dx, rows, n)


@kernel
def layer_norm_backward_weight(gpu: Device, dy: Any, x: Any, mean: Any, rstd: Any, dweight: Any, dbias: Any) -> None:
    rows, n = x.shape
    blocks = -(-n // WARP)
    count, length = pieces(rows, 64, 8, -(-FULL // max(blocks, 1)))
    sums = gpu.empty((count, n, 2), "float64")
    t = ctype(x.dtype)
    name = f"layer_norm_column_sums<{t}>"
    gpu.launch("norm", name, (blocks, count), COLUMNS, dy, x, mean, rstd, sums, rows, n, length)
    gpu.launch("norm", f"layer_norm_backward_weight<{t}>", *_warps(n), sums, dweight, dbias, n, count)
