"""Reductions over neighbouring dimensions of plain arrays, cut by shape alone: sums, and extremes with their places."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ._backend import Array, attempt
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


def extreme(x: Array, axis: int | None, lowest: bool) -> tuple[Any, Any] | None:
    """The largest (or lowest) element along ``axis`` and its place there, as (elements before, elements after); of the
    whole array (1, 1), without place. Of equals the first, a NaN before any number. None: not ours to do."""
    if type(x) is not np.ndarray or not x.flags.c_contiguous:
        return None
    if axis is None:
        y = attempt.extreme_middle(x.reshape(1, x.size, 1), (1, 1), None, lowest)
        return None if y is None else (y, None)
    sides, _ = _sides("extreme", x.shape, axis, axis + 1)
    there = sides[0], sides[2]
    return attempt.extreme_middle(x.reshape(sides), there, there, lowest)
