"""Records of softmax, log-softmax, cross-entropy and nll_loss."""

from __future__ import annotations

import numpy as np

from fastnn import functional as F

from . import Record, Sample, randn

SHAPES = [((), 0), ((0,), 0), ((5,), 0), ((64, 10), 1), ((3, 17), -1), ((0, 3), 1), ((3, 0), 1), ((7, 33), 0)]
SHAPES += [((2, 5, 19), 1), ((2, 3, 4, 5), -3), ((2, 9, 40), 1), ((1, 1000), 1), ((33, 257), 1)]


def softmax_samples(rng):
    return [Sample((np.asarray(3 * randn(rng, *shape)), dim)) for shape, dim in SHAPES]


def log_softmax(x, dim):
    if x.size == 0 or x.ndim == 0:
        return x * 0
    x = x - x.max(dim, keepdims=True)
    return x - np.log(np.exp(x).sum(dim, keepdims=True))


def label_samples(smoothing):
    def make(rng):
        samples = []
        for shape in [
            (10,),
            (64, 10),
            (5, 3),
            (0, 4),
            (7, 1),
            (33, 100),
            (2, 5, 19),
            (3, 4, 2, 5),
            (2, 3, 0),
            (2, 40, 33),
        ]:
            classes = shape[0] if len(shape) == 1 else shape[1]
            labels = np.asarray(rng.integers(0, classes, shape[:1] + shape[2:] if len(shape) > 1 else ()))
            x = 3 * randn(rng, *shape)
            weight = rng.uniform(0.5, 2, classes)
            for option in [{}, {"reduction": "sum"}, {"reduction": "none"}, {"weight": weight}]:
                samples.append(Sample((x, labels), option))
            if smoothing:
                samples.append(Sample((x, labels), {"label_smoothing": 0.1}))
                samples.append(Sample((x, labels), {"label_smoothing": 0.3, "weight": weight, "reduction": "none"}))
            if labels.size > 1 and classes > 1:  # else all are ignored: the mean is NaN, the gradient 0
                option = {"weight": weight, "ignore_index": int(labels.reshape(-1)[1])}
                samples.append(Sample((x, labels), option | ({"label_smoothing": 0.2} if smoothing else {})))
        samples.append(Sample((randn(rng, 3, 4), np.full(3, -100)), {"reduction": "sum"}))
        samples.append(Sample((randn(rng, 3, 4), np.array([2, -7, 0])), {"ignore_index": -7}))
        return samples

    return make


def soft_samples(rng):
    samples = []
    for shape in [(10,), (64, 10), (0, 4), (5, 33), (2, 5, 19), (3, 4, 2, 5)]:
        axis = 0 if len(shape) == 1 else 1
        target = rng.uniform(0.1, 1, shape)
        target /= target.sum(axis, keepdims=True)
        weight = rng.uniform(0.5, 2, shape[axis])
        for option in [{}, {"reduction": "sum"}, {"reduction": "none", "weight": weight}]:
            samples.append(Sample((2 * randn(rng, *shape), target), option))
        option = {"label_smoothing": 0.1, "weight": weight}
        samples.append(Sample((2 * randn(rng, *shape), target), option))
    return samples


def reduced(loss, divisor, reduction):
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else np.float64(loss.sum()) / divisor


def at_labels(x, target, axis, ignore_index):
    """x at the labels along the axis, and which labels count."""
    counts = target != ignore_index
    safe = np.expand_dims(np.where(counts, target, 0), axis)
    return np.take_along_axis(x, safe, axis).squeeze(axis) if x.size else np.zeros(target.shape), counts


def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    axis = 0 if x.ndim == 1 else 1
    picked, counts = at_labels(x, target, axis, ignore_index)
    weight = np.ones(x.shape[axis]) if weight is None else weight
    w = weight[np.where(counts, target, 0)] * counts
    return reduced(np.where(counts, -picked * w, 0), w.sum(), reduction)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    axis = 0 if x.ndim == 1 else 1
    logp = log_softmax(x, axis)
    w = np.ones(x.shape[axis]) if weight is None else weight
    spread = w.reshape(-1, *(1,) * (x.ndim - axis - 1))
    if target.shape == x.shape:
        q = (1 - label_smoothing) * target + label_smoothing / x.shape[axis]
        return reduced(-(spread * q * logp).sum(axis), x.size // x.shape[axis], reduction)
    picked, counts = at_labels(logp, target, axis, ignore_index)
    at = w[np.where(counts, target, 0)] * counts
    even = np.where(counts, -(spread * logp).sum(axis), 0)
    loss = (1 - label_smoothing) * np.where(counts, -picked * at, 0) + label_smoothing / x.shape[axis] * even
    return reduced(loss, at.sum(), reduction)


RECORDS = [
    Record("softmax", F.softmax, softmax_samples, lambda x, dim: np.exp(log_softmax(x, dim))),
    Record("log_softmax", F.log_softmax, softmax_samples, log_softmax),
    Record("cross_entropy", F.cross_entropy, label_samples(True), cross_entropy, tolerance=12),
    Record("cross_entropy:probabilities", F.cross_entropy, soft_samples, cross_entropy, (0, 1), tolerance=12),
    Record("nll_loss", F.nll_loss, label_samples(False), nll_loss, tolerance=12),
]
