"""How the rows of (outer, n, inner) are shared among threads: the host side of csrc/cuda/rows.cuh, by shape alone."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COLUMNS", "Rows", "rows"]

COLUMNS = 0
HELD = ((32, 2), (32, 16), (256, 16), (256, 0), (COLUMNS, 0))
"""(team, items) of kernels that keep a row in registers; those that pass over it once need the teams alone."""


class Rows(NamedTuple):
    team: int  # threads of a row: a warp, a block, or eight of a block that holds 32 neighbouring rows
    items: int  # elements that each of them holds; 0: the row is read again by every pass
    grid: int
    block: int


def rows(outer: int, n: int, inner: int) -> Rows:
    """The cut for a shape."""
    if inner != 1:
        return Rows(COLUMNS, 0, -(-outer * inner // 32), 256)
    if n <= 512:
        return Rows(32, 2 if n <= 64 else 16, -(-outer // 4), 128)
    return Rows(256, 16 if n <= 4096 else 0, outer, 256)
