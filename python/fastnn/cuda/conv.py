"""Convolution, its gradients, unfold and fold: host functions of csrc/cuda/conv_*.cu and im2col.cu.

``planned`` is the table of plans; a plan is how a layer is computed:
  direct     by the definition: any geometry (conv_direct.cu); FASTNN_CONV=direct chooses it for all layers
  depthwise  the same with the weights in shared memory, for one channel in (conv_direct.cu)
  small      an image, or a band of it, in shared memory: few channels, one launch (conv_small.cu)
  gemm       implicit GEMM, on the ordinary units (conv_gemm.cu) or, in lower precisions, on tensor cores (conv_mma.cu)
Every sum is made in an order that follows from shapes alone: the bits are those of any GPU that has the instructions.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ._gather import Gather, forward_gather, input_gathers
from .conv_tiles import FORWARD, RUNS, WEIGHT, Row
from .launch import blocks, ctype, kernel
from .precision import precision_on

if TYPE_CHECKING:
    from .device import Device

THREADS = 128
GRID = 2**16  # what the second and third numbers of a grid stay below
AT_A_TIME = 128
"""Blocks that a large GPU runs beside one another."""
LEAST_PART = 256
"""Positions of the weights' gradient that are worth a block of their own and a second pass over the sums."""


# -- plans -------------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=512)
def planned(g: Gather, t: str, weight: bool = False) -> str:
    """The plan of a gather of ``t`` ("float" or "double"), or of the weights' gradient: the first row that fits."""
    ordinary = g.fits_int and g.taps > 0 and g.groups < GRID and -(-g.M // 8) < GRID
    few, shallow = g.M < 16 or g.C < 16, g.M <= 16 or g.taps < 64
    table = (
        (not ordinary, "direct"),
        (g.groups > 1 and g.C == 1 and g.groups * g.M < GRID and g.R * g.S <= 1024, "depthwise"),
        (weight, "gemm"),
        (ordinary and few and shallow and (g.groups == 1 or g.M >= 4) and small_block(g, t) is not None, "small"),
        (g.groups > 1 and (g.M < 8 or g.C < 4), "direct"),
        (True, "gemm"),
    )
    return next(plan for fits, plan in table if fits)


def wanted_plan() -> str | None:
    """FASTNN_CONV's plan; of the CPU's names only "direct" means one here."""
    return "direct" if os.environ.get("FASTNN_CONV") == "direct" else None


class Block(NamedTuple):
    """What a block of the plan "small" makes: channels, positions of a thread, and the part of src that it reads."""

    channels: int
    positions: int
    rows: int
    height: int
    width: int
    top: int
    left: int
    shared: int  # bytes


SMALL = {"float": ((8, 1), (8, 2), (16, 1), (16, 2), (16, 4)), "double": ((8, 1), (8, 2))}
SMALL_SHARED = 48 * 1024


@lru_cache(maxsize=512)
def small_block(g: Gather, t: str) -> Block | None:
    """The block of ``conv_small`` for a gather; None where it does not fit shared memory."""
    area = g.Ho * g.Wo
    wanted = 1 if area <= THREADS else 2 if area <= 2 * THREADS or g.M <= 8 else 4
    top, left = min(0, (g.R - 1) * g.dq), min(0, (g.S - 1) * g.du)
    width = (g.Wo - 1) * g.sj + (g.S - 1) * abs(g.du) + 1
    for channels, positions in reversed(SMALL[t]):
        if positions > wanted or channels > (8 if g.M <= 8 else 16) or g.Wo > positions * THREADS:
            continue
        bands = -(-g.Ho // (positions * THREADS // g.Wo))
        rows = -(-g.Ho // bands)
        height = (rows - 1) * g.si + (g.R - 1) * abs(g.dq) + 1
        shared = (g.taps * channels + g.C * height * width) * (8 if t == "double" else 4)
        if shared <= SMALL_SHARED and g.N * bands < 2**31 and -(-g.M // channels) < GRID:
            return Block(channels, positions, rows, height, width, top, left, shared)
    return None


@lru_cache(maxsize=512)
def forward_row(precision: str, dtype: str, g: Gather) -> Row:
    """The tile of the least time: rounds of AT_A_TIME blocks, times the work of one."""

    def time(row: Row) -> float:
        rounds = -(-row.blocks(g.M, g.positions) * g.groups // AT_A_TIME)
        return rounds * row.tile.M * row.tile.N / row.rate

    return min(FORWARD[precision, dtype], key=time)


@lru_cache(maxsize=512)
def weight_row(precision: str, dtype: str, g: Gather) -> Row:
    """The tile of the least work: positions are cut into as many parts as keep the GPU busy."""
    return min(WEIGHT[precision, dtype], key=lambda row: row.blocks(g.M, g.taps) * row.tile.M * row.tile.N / row.rate)


def parts_of(work: int, blocks_: int, least: int) -> int:
    """Into how many parts, of ``least`` or more, a sum over ``work`` is cut, when each part is ``blocks_`` blocks."""
    return max(1, min(2 * AT_A_TIME // max(blocks_, 1), work // least))


def _name(x: Any) -> str:
    """The dtype's name, which takes NumPy longer than a launch takes us."""
    return "float32" if x.itemsize == 4 else "float64"


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


# -- the passes --------------------------------------------------------------------------------------------------------
def gather(gpu: Device, op: str, g: Gather, src: Any, w: Any, bias: Any, dst: Any, relu: int) -> None:
    """Forward, and each phase of the input's gradient."""
    t, precision = ctype(src.dtype), precision_on(gpu, op, src.dtype)
    if g.positions * g.M * g.groups == 0:
        return
    plan = wanted_plan() or planned(g, t)
    if plan == "direct":
        grid = blocks(g.positions * g.M * g.groups, THREADS)
        gpu.launch("conv_direct", f"conv_direct<{t}>", grid, THREADS, src, w, bias, dst, g.struct, relu)
    elif plan == "depthwise":
        images = (blocks(g.positions, THREADS), g.groups * g.M)
        shared = g.R * g.S * src.itemsize
        gpu.launch(
            "conv_direct", f"conv_depthwise<{t}>", images, THREADS, src, w, bias, dst, g.struct, relu, shared=shared
        )
    elif plan == "small":
        block = small_block(g, t)
        assert block is not None
        grid3 = (g.N * -(-g.Ho // block.rows), -(-g.M // block.channels), g.groups)
        name = f"conv_small<{t}, {block.channels}, {block.positions}>"
        part = (block.rows, block.height, block.width, block.top, block.left)
        gpu.launch("conv_small", name, grid3, THREADS, src, w, bias, dst, g.struct, relu, *part, shared=block.shared)
    else:
        forward_gemm(gpu, precision, g, src, w, bias, dst, relu)


def forward_gemm(gpu: Device, precision: str, g: Gather, src: Any, w: Any, bias: Any, dst: Any, relu: int) -> None:
    t, row = ctype(src.dtype), forward_row(precision, _name(src), g)
    run = next(run for run in RUNS if round_up(g.C, run) <= 1.2 * g.C)
    channels = round_up(g.C, run)
    rows, columns = round_up(channels * g.R * g.S, row.step), round_up(g.M, row.tile.M)
    packed = gpu.xp.empty(g.groups * rows * columns, src.dtype)
    gpu.launch("conv_gemm", f"conv_pack<{t}>", blocks(packed.size), 256, w, packed, g.struct, channels, rows, columns)
    grid = (-(-g.positions // row.tile.N), columns // row.tile.M, g.groups)
    args = (packed, src, bias, dst, g.struct, relu, channels, rows, columns)
    gpu.launch(row.unit, row.expression.format(run=run), grid, row.tile.threads, *args, shared=row.tile.shared)


def weight(gpu: Device, op: str, g: Gather, dy: Any, x: Any, dw: Any) -> None:
    """The weights' gradient: parts, then their sum."""
    t, xp, precision = ctype(x.dtype), gpu.xp, precision_on(gpu, op, x.dtype)
    if dw.size == 0:
        return
    plan = wanted_plan() or planned(g, t, weight=True)
    if plan == "direct" or dy.size == 0 or x.size == 0:
        count = parts_of(g.N * g.Ho, dw.size // THREADS, 16)
        parts = dw if count == 1 else xp.empty((count, *dw.shape), dw.dtype)
        args = (dy, x, parts, g.struct, count)
        gpu.launch("conv_direct", f"conv_direct_weight<{t}>", blocks(parts.size, THREADS), THREADS, *args)
    elif plan == "depthwise":
        channels = g.groups * g.M
        count = parts_of(g.N, channels, 1)
        parts = dw if count == 1 else xp.empty((count, *dw.shape), dw.dtype)
        gpu.launch("conv_direct", f"conv_depthwise_weight<{t}>", (channels, count), THREADS, dy, x, parts, g.struct)
    else:
        return weight_gemm(gpu, precision, g, dy, x, dw)
    if count > 1:
        sum_parts(gpu, parts, dw, count)


def weight_gemm(gpu: Device, precision: str, g: Gather, dy: Any, x: Any, dw: Any) -> None:
    row = weight_row(precision, _name(x), g)
    columns, high = round_up(g.taps, row.tile.N), -(-g.M // row.tile.M)
    wide = columns // row.tile.N
    count = min(parts_of(g.positions, wide * high * g.groups, LEAST_PART), (GRID - 1) // g.groups)
    part = round_up(-(-g.positions // count), 32)
    count = -(-g.positions // part)
    parts = gpu.xp.empty((count, g.groups * g.M, columns), dw.dtype)
    grid, shared = (wide, high, count * g.groups), row.tile.shared
    gpu.launch(row.unit, row.expression, grid, row.tile.threads, dy, x, parts, g.struct, columns, part, shared=shared)
    name = f"conv_sum_weight<{ctype(dw.dtype)}>"
    gpu.launch("conv_gemm", name, blocks(parts.size // count), 256, parts, dw, g.struct, columns, count)


def sum_parts(gpu: Device, parts: Any, out: Any, count: int) -> None:
    name = f"conv_sum_parts<{ctype(out.dtype)}>"
    gpu.launch("conv_direct", name, blocks(out.size), 256, parts, out, out.size, count)


# -- the kernels of the table ------------------------------------------------------------------------------------------
@kernel
def conv2d(gpu: Device, x: Any, w: Any, bias: Any, y: Any, *numbers: int) -> None:
    *geometry, activation = numbers
    g = forward_gather(x.shape, w.shape, y.shape, tuple(geometry))
    gather(gpu, "conv2d", g, x, w, bias, y, activation)


@kernel
def conv2d_backward_input(gpu: Device, dy: Any, w: Any, dx: Any, *numbers: int) -> None:
    for g in input_gathers(dx.shape, w.shape, dy.shape, numbers):
        gather(gpu, "conv2d_backward_input", g, dy, w, None, dx, 0)


@kernel
def conv2d_backward_weight(gpu: Device, dy: Any, x: Any, dw: Any, *numbers: int) -> None:
    weight(gpu, "conv2d_backward_weight", forward_gather(x.shape, dw.shape, dy.shape, numbers), dy, x, dw)


@kernel
def conv2d_backward_bias(gpu: Device, dy: Any, db: Any) -> None:
    n, k, *size = dy.shape
    positions, at_once = size[0] * size[1], 16 // dy.itemsize
    if positions * n == 0:
        db.fill(0)
        return
    if positions % at_once or dy.data.ptr % 16:
        at_once = 1
    count = max(1, min(8 * AT_A_TIME // max(k, 1), n * positions // 4096, n))
    parts = db if count == 1 else gpu.xp.empty((count, k), db.dtype)
    name = f"conv_bias<{ctype(dy.dtype)}, {at_once}>"
    gpu.launch("conv_direct", name, (k, count), 256, dy, parts, n, k, positions)
    if count > 1:
        sum_parts(gpu, parts, db, count)


@kernel
def unfold(gpu: Device, x: Any, columns: Any, *numbers: int) -> None:
    g = (x.shape[0] * x.shape[1], *x.shape[2:], *numbers)
    gpu.launch("im2col", f"unfold<{ctype(x.dtype)}>", blocks(columns.size), 256, x, columns, g)


@kernel
def fold(gpu: Device, columns: Any, x: Any, *numbers: int) -> None:
    g = (x.shape[0] * x.shape[1], *x.shape[2:], *numbers)
    gpu.launch("im2col", f"fold<{ctype(x.dtype)}>", blocks(x.size), 256, columns, x, g)
