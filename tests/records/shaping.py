"""Records of shaping ops."""

from __future__ import annotations

import numpy as np

from fastnn import functional as F

from . import Record, Sample, randn


def pairs(rng):
    return [
        Sample((randn(rng, 3, 5), randn(rng, 3, 5))),
        Sample((randn(rng, 2, 0, 3), randn(rng, 2, 0, 3))),
        Sample((randn(rng, 2, 3, 4), randn(rng, 2, 3, 4)), {"dim": -1}),
    ]


def cat(a, b, dim=0):
    return F.cat([a, b], dim)


def stack(a, b, dim=0):
    return F.stack([a, b], dim)


def selections(rng):
    return [
        Sample((rng.random((3, 5)) < 0.5, randn(rng, 3, 5), randn(rng, 5))),
        Sample((rng.random((2, 1)) < 0.5, randn(rng, 1, 3), randn(rng, 2, 3))),
        Sample((rng.random((0, 3)) < 0.5, randn(rng, 0, 3), randn(rng, 3))),
    ]


RECORDS = [
    Record("cat", cat, pairs, lambda a, b, dim=0: np.concatenate([a, b], dim), differentiable=(0, 1)),
    Record("stack", stack, pairs, lambda a, b, dim=0: np.stack([a, b], dim), differentiable=(0, 1)),
    Record("where", F.where, selections, np.where, differentiable=(1, 2), nan=False),
]
