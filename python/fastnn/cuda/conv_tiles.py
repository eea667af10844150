"""Tiles of the implicit GEMMs: what tiles.py is to matrix products, with the same main loops and the same columns.

``FORWARD`` serves the forward pass and the input's gradient, ``WEIGHT`` the weights' gradient, by precision and dtype;
table.py compiles all of them, conv.py chooses. A forward kernel exists for both runs of channels (``{run}``).
"""

from __future__ import annotations

from typing import NamedTuple

from .tiles import MmaTile, SimtTile

__all__ = ["FORWARD", "RUNS", "WEIGHT", "Row"]

RUNS = (4, 1)
"""Channels that are brought with one tap: 4, or 1 where rounding their number up to 4 would cost too much."""


class Row(NamedTuple):
    unit: str
    expression: str
    tile: SimtTile | MmaTile
    rate: float  # multiply-adds in a given time, beside those of the largest tile

    def blocks(self, rows: int, columns: int) -> int:
        return -(-rows // self.tile.M) * -(-columns // self.tile.N)

    @property
    def step(self) -> int:
        """Columns of K of one stage."""
        return self.tile.K if isinstance(self.tile, SimtTile) else 16


def _simt(tile: SimtTile, rate: float, weight: bool = False) -> Row:
    name = f"conv_gemm_weight<{tile}, {tile.kind}>" if weight else f"conv_gemm<{tile}, {{run}}, {tile.kind}>"
    return Row("conv_gemm", name, tile, rate)


def _mma(precision: str, weight: bool = False) -> list[Row]:
    rows, middle = [], MmaTile(64, 128, 32, 32 if precision == "Tf32x3" else 64)  # 3xTF32 needs twice the operands
    for tile, rate in ((MmaTile(128, 128, 64, 32), 1.0), (middle, 0.85), (MmaTile(64, 64, 32, 32), 0.6)):
        name = f"conv_mma_weight<{precision}, {tile}>" if weight else f"conv_mma<{precision}, {tile}, {{run}}>"
        rows.append(Row(f"conv_{precision.lower()}", name, tile, rate))
    return rows


FORWARD: dict[tuple[str, str], list[Row]] = {
    ("highest", "float32"): [
        _simt(SimtTile("float", 128, 256, 8, 8, 16, 4), 1.0),
        _simt(SimtTile("float", 128, 128, 8, 8, 8, 4), 0.9),
        _simt(SimtTile("float", 64, 128, 8, 8, 8, 4), 0.85),
        _simt(SimtTile("float", 64, 64, 16, 8, 4, 4), 0.7),
        _simt(SimtTile("float", 32, 32, 32, 4, 4, 4, 4), 0.35),
    ],
    ("highest", "float64"): [_simt(SimtTile("double", 64, 64, 8, 8, 4, 4), 1.0)],
    ("high", "float32"): _mma("Tf32x3"),
    ("medium", "float32"): _mma("Tf32"),
    ("bfloat16", "float32"): _mma("Bf16"),
}
WEIGHT: dict[tuple[str, str], list[Row]] = {
    ("highest", "float32"): [
        _simt(SimtTile("float", 128, 256, 8, 8, 16, 4), 1.0, True),
        _simt(SimtTile("float", 128, 128, 8, 8, 8, 4), 0.9, True),
        _simt(SimtTile("float", 64, 128, 8, 8, 8, 4), 0.85, True),
        _simt(SimtTile("float", 64, 64, 16, 8, 4, 4), 0.7, True),
        _simt(SimtTile("float", 64, 32, 16, 8, 4, 4, 4), 0.6, True),
        _simt(SimtTile("float", 16, 64, 16, 4, 4, 4, 4), 0.4, True),
        _simt(SimtTile("float", 8, 64, 16, 4, 4, 4, 4), 0.35, True),
    ],
    ("highest", "float64"): [
        _simt(SimtTile("double", 64, 64, 8, 8, 4, 4), 1.0, True),
        _simt(SimtTile("double", 16, 64, 16, 4, 4, 3, 4), 0.5, True),
    ],
    ("high", "float32"): _mma("Tf32x3", True),
    ("medium", "float32"): _mma("Tf32", True),
    ("bfloat16", "float32"): _mma("Bf16", True),
}
