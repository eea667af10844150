"""Records of normalisation."""

from __future__ import annotations

import numpy as np

from fastnn import Tensor
from fastnn import functional as F

from . import Record, Sample, randn

SHAPES = [(2, 3), (70, 33), (5, 1, 7), (3, 2, 4, 5), (4, 9, 33), (2, 17, 3, 3), (33, 2, 20, 20), (3, 0, 4)]


def per_channel(x, a):
    return np.reshape(a, (1, -1) + (1,) * (x.ndim - 2))


def training_samples(rng):
    samples = [Sample((randn(rng, *s) * 2 + 3, randn(rng, s[1]), randn(rng, s[1]))) for s in SHAPES]
    return [*samples, Sample((randn(rng, 4, 3, 5), None, None)), Sample((randn(rng, 4, 3), randn(rng, 3), None, 0.5))]


def train(x, weight, bias, eps=1e-5):
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def train_reference(x, weight, bias, eps=1e-5):
    axes = (0, *range(2, x.ndim))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    y = y if weight is None else y * per_channel(x, weight)
    return y if bias is None else y + per_channel(x, bias)


def evaluation_samples(rng):
    return [
        Sample((randn(rng, *s), randn(rng, s[1]), rng.random(s[1]) + 0.5, randn(rng, s[1]), randn(rng, s[1])))
        for s in [*SHAPES, (1, 4, 1), (0, 3, 2)]
    ]


def evaluate(x, mean, var, weight, bias):
    if isinstance(mean, Tensor):
        mean, var = mean.detach(), var.detach()
    return F.batch_norm(x, mean, var, weight, bias)


def evaluate_reference(x, mean, var, weight, bias):
    mean, var, weight, bias = (per_channel(x, a) for a in (mean, var, weight, bias))
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def layer_samples(rng):
    return [
        Sample((randn(rng, 5, 7), 7, randn(rng, 7), randn(rng, 7))),
        Sample((randn(rng, 2, 3, 33) + 5, (33,), randn(rng, 33), None)),
        Sample((randn(rng, 4, 3, 9), [3, 9], None, randn(rng, 3, 9))),
        Sample((randn(rng, 16), 16, None, None, 0.1)),
        Sample((randn(rng, 0, 5), 5, randn(rng, 5), randn(rng, 5))),
        Sample((randn(rng, 70, 300), 300, randn(rng, 300), randn(rng, 300))),
    ]


def layer_reference(x, shape, weight, bias, eps=1e-5):
    axes = tuple(range(x.ndim - (1 if isinstance(shape, int) else len(shape)), x.ndim))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    return (y if weight is None else y * weight) + (0 if bias is None else bias)


def response_samples(rng):
    return [
        Sample((randn(rng, 2, 7, 5), 5)),
        Sample((randn(rng, 2, 9, 3, 4) * 3, 4, 0.3, 0.75, 2.0)),
        Sample((randn(rng, 1, 4, 300), 3, 0.5, 0.6, 1.5)),
        Sample((randn(rng, 2, 3, 5), 9, 1.0, 2.0, 1.0)),
        Sample((randn(rng, 2, 3, 5), 1, 1.0, 0.5, 1.0)),
        Sample((randn(rng, 0, 3, 5), 3)),
    ]


def response_reference(x, size, alpha=1e-4, beta=0.75, k=1.0):
    square = np.zeros_like(x)
    for c in range(x.shape[1]):
        square[:, c] = (x[:, max(c - size // 2, 0) : c + (size - 1) // 2 + 1] ** 2).sum(1)
    return x / (k + alpha / size * square) ** beta


RECORDS = [
    Record("batch_norm: training", train, training_samples, train_reference, (0, 1, 2), tolerance=32),
    Record("batch_norm: evaluation", evaluate, evaluation_samples, evaluate_reference, (0, 3, 4), tolerance=32),
    Record("layer_norm", F.layer_norm, layer_samples, layer_reference, (0, 2, 3), tolerance=32),
    Record("local_response_norm", F.local_response_norm, response_samples, response_reference, tolerance=16),
]
