"""Matrix products: host functions of csrc/cuda/gemm.cu. One choice of tile for all of them, from tiles.py.

The choice, and into how many parts K is cut, follow from the shapes alone: the bits are the same on any GPU that has
the instructions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import blocks, ctype, kernel
from .precision import precision_on
from .tiles import GEMM, Row

if TYPE_CHECKING:
    from .device import Device

AT_A_TIME = 128
"""Blocks that a large GPU runs beside one another; products of fewer tiles are cut along K."""
LEAST_PART = 256
"""Columns of K that are worth a block of their own and a second pass over the sums."""


def rows_for(gpu: Device, op: str, dtype: Any) -> list[Row]:
    """The tiles of the precision that holds now, for which the device has the memory."""
    rows = GEMM[precision_on(gpu, op, dtype), dtype.name]
    return [row for row in rows if row.tile.shared <= gpu.shared_limit]


def choose(rows: list[Row], M: int, N: int, batch: int, wide: bool) -> Row:
    """The tile of the least time: rounds of AT_A_TIME blocks, times the work of one."""

    def time(row: Row) -> float:
        tiles = -(-M // row.tile.M) * -(-N // row.tile.N) * batch
        return -(-tiles // AT_A_TIME) * row.tile.M * row.tile.N / row.rate

    return min((row for row in rows if wide or not row.wide), key=time)


def parts_of(row: Row, M: int, N: int, K: int) -> int:
    """Into how many parts K is cut, that a product of few tiles may keep many blocks busy."""
    tiles = -(-M // row.tile.M) * -(-N // row.tile.N)
    return max(1, min(2 * AT_A_TIME // tiles, K // LEAST_PART))


def _wide(*matrices: Any) -> bool:
    """Whether every row of these begins at a multiple of 16 bytes."""
    return all(x is None or (x.data.ptr % 16 == 0 and x.shape[-1] * x.itemsize % 16 == 0) for x in matrices)


def _launch(
    gpu: Device, row: Row, a: Any, b: Any, biases: Any, y: Any, product: Any, trans: Any, batch: int, numbers: Any
) -> None:
    """``product`` is the kernel's struct Product; ``numbers`` alpha, beta and activation."""
    M, N, K, part = product[:4]
    tiles = -(-M // row.tile.M) * -(-N // row.tile.N)
    expression = row.expression.format(trans_a=str(trans[0]).lower(), trans_b=str(trans[1]).lower())
    grid, tile = (tiles * batch, max(1, -(-K // part))), row.tile
    gpu.launch(row.unit, expression, grid, tile.threads, a, b, *biases, y, product, *numbers, shared=tile.shared)


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
    row = choose(rows_for(gpu, "gemm", y.dtype), M, N, 1, _wide(a, b, y, biases[1]))
    parts = parts_of(row, M, N, K)
    if parts == 1:
        product = (M, N, K, max(K, 1), 0, 0, *trans)
        _launch(gpu, row, a, b, biases, y, product, trans, 1, (alpha, beta, activation))
        return
    part = -(-K // (32 * parts)) * 32  # whole stages of every tile, and aligned
    parts = -(-K // part)
    sums = gpu.xp.empty((parts, M, N), y.dtype)
    _launch(gpu, row, a, b, (None, None), sums, (M, N, K, part, 0, 0, *trans), trans, 1, (1.0, 0.0, 0))
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
    row = choose(rows_for(gpu, "gemm_batch", y.dtype), M, N, batch, _wide(a, b, y))
    product = (M, N, K, max(K, 1), *steps, *trans)
    _launch(gpu, row, a, b, (None, None), y, product, trans, batch, (1.0, 0.0, 0))
