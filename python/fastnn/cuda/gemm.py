"""Matrix products: host functions of csrc/cuda/gemm.cu and round.cu. One choice of tile for all of them, from tiles.py.

The choice, and into how many parts K is cut, follow from the shapes alone (and from whether a block's shared memory
holds a tile): the bits do not depend on how many multiprocessors there are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .launch import blocks, ctype, kernel
from .precision import precision_on
from .tiles import GEMM, Row

if TYPE_CHECKING:
    from .device import Device

AT_A_TIME = 128
"""Multiprocessors of a large GPU: so many of the largest tiles are worked on at a time."""
LEAST_ROUNDED = 512
"""Rows and columns of a product that repays a pass over both operands."""
LEAST_PART = 256
"""Columns of K that are worth a block of their own and a second pass over the sums."""


_WORDS = {False: "false", True: "true"}


class Shape(NamedTuple):
    """What decides how a product is computed. ``packs``: those of a, b and y whose rows are aligned to 16 bytes."""

    precision: str
    dtype: str
    M: int
    N: int
    K: int
    batch: int
    packs: str
    shared_limit: int


class Plan(NamedTuple):
    row: Row
    grid: tuple[int, int]  # tiles, parts of K
    part: int  # columns of K (pairs of them, if rounded) to a part


def choose(shape: Shape) -> Row:
    """The tile of the least time: rounds of AT_A_TIME blocks, times the work of one."""

    def fits(row: Row) -> bool:
        if row.rounded and (shape.batch > 1 or min(shape.M, shape.N) < LEAST_ROUNDED):
            return False
        return row.tile.shared <= shape.shared_limit and set(row.packs) <= set(shape.packs)

    def time(row: Row) -> float:
        return -(-row.tiles(shape.M, shape.N) * shape.batch // AT_A_TIME) * row.tile.M * row.tile.N / row.rate

    return min(filter(fits, GEMM[shape.precision, shape.dtype]), key=time)


def parts_of(row: Row, M: int, N: int, K: int) -> int:
    """Into how many parts K is cut, that a product of few tiles may keep all multiprocessors busy, each with one large
    tile or four small ones."""
    blocks = AT_A_TIME * (4 if row.tile.M * row.tile.N <= 64 * 64 else 1)
    return max(1, min(blocks // row.tiles(M, N), K // LEAST_PART))


@lru_cache(4096)
def plan_of(shape: Shape) -> Plan:
    """Kept, because choosing takes longer than launching."""
    row = choose(shape)
    K = -(-shape.K // 8) * 4 if row.rounded else shape.K
    parts = parts_of(row, shape.M, shape.N, K) if shape.batch == 1 else 1
    part = -(-max(K, 1) // (32 * parts)) * 32  # whole stages of every tile, and aligned
    return Plan(row, (row.tiles(shape.M, shape.N) * shape.batch, max(1, -(-K // part))), part)


def _plan(gpu: Device, op: str, M: int, N: int, K: int, batch: int, a: Any, b: Any, y: Any, bias: Any) -> Plan:
    packs = ("a" if _in_packs(a) else "") + ("b" if _in_packs(b) else "")
    if _in_packs(y) and (bias is None or _in_packs(bias)):
        packs += "y"
    dtype = "float32" if y.itemsize == 4 else "float64"
    return plan_of(Shape(precision_on(gpu, op, y.dtype), dtype, M, N, K, batch, packs, gpu.shared_limit))


@lru_cache(4096)
def _product(*numbers: int) -> tuple[int, ...]:
    """struct Product of gemm.cuh; one tuple for all that are equal, which a launch knows again."""
    return numbers


def _in_packs(x: Any) -> bool:
    return x.shape[-1] * x.itemsize % 16 == 0 and x.data.ptr % 16 == 0


def _rounded(gpu: Device, x: Any, transposed: bool) -> Any:
    """x, or x transposed, as pairs of bf16: its columns made a multiple of 8, 16 bytes, by zeros."""
    rows, columns = x.shape
    pairs = -(-(rows if transposed else columns) // 8) * 4
    y = gpu.xp.empty((columns if transposed else rows, pairs), "uint32")
    if transposed:
        grid = -(-columns // 32) * -(-pairs // 32)
        gpu.launch("round", "round_columns", grid, 256, x, y, rows, columns, pairs)
    else:
        gpu.launch("round", "round_rows", rows, 256, x, y, columns, pairs)
    return y


def _launch(gpu: Device, plan: Plan, *arguments: Any, trans: tuple[bool, bool]) -> None:
    row = plan.row
    expression = row.expression
    if row.packs == "aby":  # one for each pair of transposes
        expression = expression.format(trans_a=_WORDS[trans[0]], trans_b=_WORDS[trans[1]])
    gpu.launch(row.unit, expression, plan.grid, row.tile.threads, *arguments, shared=row.tile.shared)


@kernel
def gemm(
    gpu: Device,
    a: Any,
    b: Any,
    bias: Any,
    y: Any,
    trans_a: int,
    trans_b: int,
    activation: int,
    alpha: float,
    beta: float,
) -> None:
    """y = activation(alpha op(a) op(b) + beta y + bias)."""
    (M, N), K = y.shape, a.shape[0 if trans_a else 1]
    if M == 0 or N == 0:
        return
    trans = bool(trans_a), bool(trans_b)
    along_rows = bias is not None and bias.ndim == 2 and bias.shape[0] == M and (M != 1 or N == 1)
    biases = (bias, None) if along_rows else (None, bias)
    plan = _plan(gpu, "gemm", M, N, K, 1, a, b, y, biases[1])
    if plan.row.rounded:
        a, b = _rounded(gpu, a, trans[0]), _rounded(gpu, b, not trans[1])
        trans, K = (False, True), a.shape[1]
    product, parts = _product(M, N, K, plan.part, 0, 0, *trans), plan.grid[1]
    if parts == 1:
        _launch(gpu, plan, a, b, *biases, y, product, alpha, beta, activation, trans=trans)
        return
    sums = gpu.xp.empty((parts, M, N), y.dtype)
    _launch(gpu, plan, a, b, None, None, sums, product, 1.0, 0.0, 0, trans=trans)
    gpu.launch(
        "gemm", f"gemm_add_parts<{ctype(y.dtype)}>", blocks(y.size), 256, sums, *biases, y, M, N, parts, alpha, beta,
        activation,
    )  # fmt: skip


@kernel
def gemm_batch(gpu: Device, a: Any, b: Any, y: Any, trans_a: int, trans_b: int) -> None:
    """y[i] = op(a[i]) op(b[i]); a batch of 1 serves all."""
    (batch, M, N), K = y.shape, a.shape[1 if trans_a else 2]
    if y.size == 0:
        return
    trans = bool(trans_a), bool(trans_b)
    steps = (0 if a.shape[0] == 1 else M * K, 0 if b.shape[0] == 1 else K * N)
    plan = _plan(gpu, "gemm_batch", M, N, K, batch, a, b, y, None)
    product = _product(M, N, K, plan.part, *steps, *trans)
    _launch(gpu, plan, a, b, None, None, y, product, 1.0, 0.0, 0, trans=trans)
