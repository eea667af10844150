"""Records of activations."""

from __future__ import annotations

import math

import numpy as np

from fastnn import functional as F

from . import Record, Sample, distinct

SHAPES = [(), (0,), (1,), (7,), (8,), (33,), (2, 0, 3), (3, 5, 7), (129, 257)]


def samples(*options):
    """Every shape with the defaults, and small ones with each set of options."""

    def make(rng):
        plain = [Sample((distinct(rng, *shape),)) for shape in SHAPES]
        return plain + [Sample((distinct(rng, 11, 29),), option) for option in options]

    return make


erf = np.vectorize(math.erf, otypes=[float])


def gelu(x, approximate="none"):
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2))) if x.size else x


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(x))


def selu(x):
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def softplus(x, beta=1, threshold=20):
    return np.where(x * beta > threshold, x, np.log1p(np.exp(x * beta)) / beta)


RECORDS = [
    Record("relu", F.relu, samples(), lambda x: np.maximum(x, 0)),
    Record(
        "leaky_relu",
        F.leaky_relu,
        samples({"negative_slope": 0.3}, {"negative_slope": -0.5}),
        lambda x, negative_slope=0.01: np.where(x > 0, x, x * negative_slope),
    ),
    Record(
        "hardtanh",
        F.hardtanh,
        samples({"min_val": -0.4, "max_val": 0.7}),
        lambda x, min_val=-1.0, max_val=1.0: np.clip(x, min_val, max_val),
    ),
    Record("relu6", F.relu6, samples(), lambda x: np.clip(x, 0, 6)),
    Record("elu", F.elu, samples({"alpha": 0.7}, {"alpha": -0.5}), elu),
    Record("selu", F.selu, samples(), selu),
    Record("gelu", F.gelu, samples({"approximate": "tanh"}), gelu),
    Record("silu", F.silu, samples(), lambda x: x / (1 + np.exp(-x))),
    Record("softplus", F.softplus, samples({"beta": 3}, {"beta": 0.5, "threshold": 0.2}), softplus),
    Record("sigmoid", F.sigmoid, samples(), lambda x: 1 / (1 + np.exp(-x))),
    Record("tanh", F.tanh, samples(), np.tanh),
]
