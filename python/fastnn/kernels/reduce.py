"""Sums over neighbouring dimensions of plain arrays, in an order fixed by the shape."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from ._backend import Array
from ._check import floats, integer, launch

__all__ = ["sum_middle"]


def sum_middle(x: Array, begin: int, end: int, *, out: Array | None = None) -> Array:
    """The sum over dimensions ``begin`` to ``end - 1``, which the result lacks."""
    op = "sum_middle"
    (x,) = floats(op, x=x)
    begin, end = integer(op, "begin", begin), integer(op, "end", end)
    sides, shape = _sides(op, x.shape, begin, end)
    return launch(op, out, shape, (x.reshape(sides),), seen=(sides[0], sides[2]), apart=(x,))


@lru_cache(maxsize=512)
def _sides(op: str, shape: tuple[int, ...], begin: int, end: int) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """(outer, n, inner) as the kernel has it, and the shape of the sum."""
    if not 0 <= begin <= end <= len(shape):
        raise ValueError(f"{op}: dimensions {begin}..{end} are out of range for shape {shape}")
    return (prod(shape[:begin]), prod(shape[begin:end]), prod(shape[end:])), shape[:begin] + shape[end:]
