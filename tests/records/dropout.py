"""Records of dropout: random, so that shape, repeatability and the gradient are what is tested."""

from __future__ import annotations

from fastnn import functional as F

from . import Record, Sample, randn


def elements(rng):
    shapes = [(0,), (1,), (63,), (64,), (65,), (3, 5, 7), (129, 257)]
    return [Sample((1 + 0 * randn(rng, *shape), p)) for shape in shapes for p in (0.2, 1.0)]


def maps(rng):
    shapes = [(2, 3, 4, 5), (1, 65, 1, 3), (4, 7, 9), (3, 5), (0, 3, 2, 2), (2, 3, 0, 2)]
    return [Sample((randn(rng, *shape),), {"p": p}) for shape in shapes for p in (0.5, 0.9)]


RECORDS = [
    Record("dropout", F.dropout, elements, None, random=True),
    Record("dropout2d", F.dropout2d, maps, None, random=True),
]
