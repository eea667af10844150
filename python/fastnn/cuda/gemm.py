"""Matrix products: host functions of csrc/cuda/gemm.cu and round.cu. One choice of tile for all of them, from tiles.py.

The choice, and into how many parts K is cut, follow from the shapes alone (and from whether a block's shared memory
holds a tile): the bits do not depend on how many multiprocessors there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def rows_for(gpu: Device, op: str, dtype: Any) -> list[Row]:
    """The tiles of the precision that holds now, for which the device has the memory."""
    rows = GEMM[precision_on(gpu, op, dtype), dtype.name]
    return [row for row in rows if row.tile.shared <= gpu.shared_limit]


def choose(rows: list[Row], M: int, N: int, batch: int, *matrices: Any) -> Row:
    """The tile of the least time: rounds of AT_A_TIME blocks, times the work of one. ``matrices``: a, b, y and, if
    there is one, the bias of the columns."""

    def fits(row: Row) -> bool:
        if row.rounded:  # a and b are copied, which y = a b must repay
            return batch == 1 and min(M, N) >= LEAST_ROUNDED and _aligned(*matrices[2:])
        return not row.wide or _aligned(*matrices)

    def time(row: Row) -> float:
        tiles = _tiles(row, M, N) * batch
        return -(-tiles // AT_A_TIME) * row.tile.M * row.tile.N / row.rate

    return min(filter(fits, rows), key=time)


def _tiles(row: Row, M: int, N: int) -> int:
    return -(-M // row.tile.M) * -(-N // row.tile.N)


def _aligned(*matrices: Any) -> bool:
    """Whether every row of these begins at a multiple of 16 bytes."""
    return all(x is None or (x.data.ptr % 16 == 0 and x.shape[-1] * x.itemsize % 16 == 0) for x in matrices)


def parts_of(row: Row, M: int, N: int, K: int) -> int:
    """Into how many parts K is cut, that a product of few tiles may keep all multiprocessors busy, each with one large
    tile or four small ones."""
    blocks = AT_A_TIME * (4 if row.tile.M * row.tile.N <= 64 * 64 else 1)
    return max(1, min(blocks // _tiles(row, M, N), K // LEAST_PART))


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


def _launch(
    gpu: Device, row: Row, a: Any, b: Any, biases: Any, y: Any, product: Any, trans: Any, batch: int, numbers: Any
) -> None:
    """``product`` is the kernel's struct Product without the transposes; ``numbers`` alpha, beta and activation."""
    M, N, K, part = product[:4]
    expression = row.expression.format(trans_a=str(trans[0]).lower(), trans_b=str(trans[1]).lower())
    grid, tile = (_tiles(row, M, N) * batch, max(1, -(-K // part))), row.tile
    arguments = (a, b, *biases, y, (*product, *trans), *numbers)
    gpu.launch(row.unit, expression, grid, tile.threads, *arguments, shared=tile.shared)


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
    row = choose(rows_for(gpu, "gemm", y.dtype), M, N, 1, a, b, y, biases[1])
    if row.rounded:
        a, b = _rounded(gpu, a, trans[0]), _rounded(gpu, b, not trans[1])
        trans, K = (False, True), a.shape[1]
    parts = parts_of(row, M, N, K)
    part = -(-max(K, 1) // (32 * parts)) * 32  # whole stages of every tile, and aligned
    parts = -(-K // part)
    if parts <= 1:
        _launch(gpu, row, a, b, biases, y, (M, N, K, part, 0, 0), trans, 1, (alpha, beta, activation))
        return
    sums = gpu.xp.empty((parts, M, N), y.dtype)
    _launch(gpu, row, a, b, (None, None), sums, (M, N, K, part, 0, 0), trans, 1, (1.0, 0.0, 0))
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
    row = choose(rows_for(gpu, "gemm_batch", y.dtype), M, N, batch, a, b, y)
    _launch(gpu, row, a, b, (None, None), y, (M, N, K, max(K, 1), *steps), trans, batch, (1.0, 0.0, 0))
