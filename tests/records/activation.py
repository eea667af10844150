"""Records of activations."""

from __future__ import annotations

import numpy as np

from fastnn import functional as F

from . import Record, Sample, distinct

SHAPES = [(), (0,), (1,), (7,), (8,), (33,), (2, 0, 3), (3, 5, 7), (129, 257)]


def samples(rng):
    return [Sample((distinct(rng, *shape),)) for shape in SHAPES]


RECORDS = [
    Record("relu", F.relu, samples, lambda x: np.maximum(x, 0)),
]
