"""Tiles of matrix products: a row for each instantiation, with what it costs and how fast it is beside the others.

``GEMM`` lists them for each precision, the largest tiles first; table.py compiles them, gemm.py chooses. The numbers
are the template arguments of csrc/cuda/gemm_simt.cuh and gemm_mma.cuh, whose formulas of threads and shared memory
stand here once more: a launch must know them before there is a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

__all__ = ["GEMM", "MmaTile", "Row", "SimtTile"]


@dataclass(frozen=True)
class SimtTile:
    """``SimtTile`` of gemm_simt.cuh: a block's tile, its steps of K; rows and columns of a thread."""

    kind: str
    M: int
    N: int
    K: int
    rows: int
    columns: int
    stages: int
    slices: int = 1

    def __str__(self) -> str:
        numbers = (self.M, self.N, self.K, self.rows, self.columns, self.stages, self.slices)
        return f"SimtTile<{self.kind}, {', '.join(map(str, numbers))}>"

    @cached_property
    def threads(self) -> int:
        return self.M // self.rows * (self.N // self.columns) * self.slices

    @cached_property
    def shared(self) -> int:
        size = 4 if self.kind == "float" else 8
        return self.stages * self.K * (self.M + self.N + 2 * 16 // size) * size


@dataclass(frozen=True)
class MmaTile:
    """``MmaTile`` of gemm_mma.cuh: a block's tile, rows and columns of a warp's."""

    M: int
    N: int
    rows: int
    columns: int
    stages: int = 4
    pad: int = 8

    def __str__(self) -> str:
        return f"MmaTile<{self.M}, {self.N}, {self.rows}, {self.columns}, {self.stages}, {self.pad}>"

    @cached_property
    def threads(self) -> int:
        return self.M // self.rows * (self.N // self.columns) * 32

    @cached_property
    def shared(self) -> int:
        return self.stages * 16 * (self.M + self.N + 2 * self.pad) * 4


class Row(NamedTuple):
    """A tile in a unit of table.py. ``rate``: multiply-adds in a given time, beside those of the largest tile.

    ``expression`` may name the transposes. ``packs``: which of a, b and y (and the columns' bias) must have rows that
    are aligned to 16 bytes. ``rounded``: operands are rounded to pairs of bf16 before, which lie along K.
    """

    unit: str
    expression: str
    tile: SimtTile | MmaTile
    rate: float
    packs: str = ""
    rounded: bool = False

    def tiles(self, M: int, N: int) -> int:
        return -(-M // self.tile.M) * -(-N // self.tile.N)

    def expressions(self) -> list[str]:
        """One, or one for each pair of transposes."""
        both = ("false", "true")
        return [*dict.fromkeys(self.expression.format(trans_a=a, trans_b=b) for a in both for b in both)]


def _simt(unit: str, tile: SimtTile, rate: float, packs: str = "") -> Row:
    return Row(unit, f"gemm_simt<{tile}, {tile.kind}>", tile, rate, packs)


def _mma(precision: str, tile: MmaTile, rate: float, wide: bool = False) -> Row:
    unit = f"gemm_{precision.lower()}"
    if wide:
        return Row(f"{unit}_wide", f"gemm_mma_wide<{precision}, {tile}, {{trans_a}}, {{trans_b}}>", tile, rate, "aby")
    return Row(unit, f"gemm_mma<{precision}, {tile}>", tile, rate)


_PAIRS = MmaTile(128, 256, 64, 64, 4, 0)

GEMM: dict[tuple[str, str], list[Row]] = {
    ("highest", "float32"): [
        _simt("gemm_large", SimtTile("float", 128, 256, 16, 8, 16, 3), 1.0, "y"),
        _simt("gemm_large", SimtTile("float", 128, 128, 16, 8, 8, 3), 0.9),
        _simt("gemm", SimtTile("float", 64, 64, 16, 8, 4, 4), 0.7),
        _simt("gemm", SimtTile("float", 32, 32, 32, 4, 4, 4, 4), 0.35),
        _simt("gemm", SimtTile("float", 16, 32, 64, 4, 4, 3, 8), 0.2),
    ],
    ("highest", "float64"): [
        _simt("gemm", SimtTile("double", 64, 64, 8, 8, 4, 4), 1.0),
        _simt("gemm", SimtTile("double", 32, 32, 32, 4, 4, 3, 4), 0.5),
    ],
    ("high", "float32"): [
        _mma("Tf32x3", MmaTile(128, 128, 64, 32), 1.0, True),
        _mma("Tf32x3", MmaTile(64, 64, 32, 32), 0.5),
    ],
    ("medium", "float32"): [
        _mma("Tf32", MmaTile(128, 256, 64, 64, 3), 1.0, True),
        _mma("Tf32", MmaTile(64, 64, 32, 32), 0.4),
    ],
    ("bfloat16", "float32"): [
        Row("gemm_bf16", f"gemm_pairs<{_PAIRS}>", _PAIRS, 1.0, "y", True),
        _mma("Bf16", MmaTile(64, 64, 32, 32), 0.3),
    ],
}
"""By precision and dtype. The last row takes any shape."""
