"""Sums and extremes over the middle of (outer, n, inner): host functions of csrc/cuda/reduce.cu.

A row is cut into pieces by shape alone, so that the order of summation does not depend on the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import ctype, kernel
from .rows import COLUMNS, rows

if TYPE_CHECKING:
    from .device import Device

PIECE = {32: 512, 256: 4096, COLUMNS: 512}
"""Elements of a row that one team of threads takes: 16 each, 64 of columns."""


def _cut(outer: int, n: int, inner: int) -> tuple[int, int, int, int, int]:
    """(team, grid, block, length of a piece, pieces)"""
    team = rows(outer, n, inner).team
    length = PIECE[team]
    pieces = max(1, -(-n // length))
    _, _, grid, block = rows(outer * pieces, n, inner)
    return team, grid, block, length, pieces


def sums(gpu: Device, x: Any, y: Any) -> None:
    """y (outer, inner) = the sum of x (outer, n, inner) over its middle, in y's dtype."""
    outer, n, inner = x.shape
    while True:
        team, grid, block, length, pieces = _cut(outer, n, inner)
        to = y if pieces == 1 else gpu.empty((outer, pieces, inner), y.dtype)
        expression = f"sum_middle<{ctype(x.dtype)}, {ctype(y.dtype)}, {team}>"
        gpu.launch("reduce", expression, grid, block, x, to, outer, n, inner, length, pieces)
        if pieces == 1:
            return
        x, n = to, pieces


def places(gpu: Device, x: Any, place: Any, lowest: bool) -> None:
    """place (outer, inner) = where in its row of x (outer, n, inner) the largest (or lowest) element stands; n > 0."""
    outer, total, inner = x.shape
    t = ctype(x.dtype)
    n, candidates = total, None
    while True:
        team, grid, block, length, pieces = _cut(outer, n, inner)
        to = place if pieces == 1 else gpu.empty((outer, pieces, inner), "int64")
        args = (x, candidates, to, outer, total, n, inner, length, pieces, lowest)
        gpu.launch("reduce", f"place_of_extreme<{t}, {'int' if t == 'bool' else t}, {team}>", grid, block, *args)
        if pieces == 1:
            return
        n, candidates = pieces, to


@kernel
def sum_middle(gpu: Device, x: Any, y: Any) -> None:
    sums(gpu, x, y)
