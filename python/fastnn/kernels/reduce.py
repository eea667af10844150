"""Sums over neighbouring dimensions of plain arrays, in an order fixed by the shape."""

from __future__ import annotations

from math import prod

from ._backend import Array
from ._check import floats, integer, launch

__all__ = ["sum_middle"]


def sum_middle(x: Array, begin: int, end: int, *, out: Array | None = None) -> Array:
    """The sum over dimensions ``begin`` to ``end - 1``, which the result lacks."""
    op = "sum_middle"
    (x,) = floats(op, x=x)
    begin, end = integer(op, "begin", begin), integer(op, "end", end)
    if not 0 <= begin <= end <= x.ndim:
        raise ValueError(f"{op}: dimensions {begin}..{end} are out of range for shape {x.shape}")
    outer, n, inner = prod(x.shape[:begin]), prod(x.shape[begin:end]), prod(x.shape[end:])
    view, shape = x.reshape(outer, n, inner), x.shape[:begin] + x.shape[end:]
    return launch(op, out, shape, [view], seen=(outer, inner), apart=[x])
