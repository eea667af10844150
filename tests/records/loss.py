"""Records of the losses that are NumPy arithmetic. Samples keep away from kinks."""

from __future__ import annotations

import numpy as np

from fastnn import functional as F

from . import Record, Sample, randn

SHAPES = [(), (1,), (33,), (5, 7), (2, 3, 4), (0,), (2, 0, 3)]


def reduced(loss, reduction, divisor=None):
    if reduction == "none":
        return loss
    return np.float64(np.sum(loss)) / (1 if reduction == "sum" else np.size(loss) if divisor is None else divisor)


def pairs(*options, weight=False, make_target=randn, make_input=randn, **always):
    """Every shape with every reduction, with a weight of its own if asked, and one shape with each set of options."""

    def samples(rng):
        made = []
        for shape in SHAPES:
            x, t = (np.asarray(make(rng, *shape)) for make in (make_input, make_target))
            for reduction in ("mean", "sum", "none"):
                option = always | {"reduction": reduction}
                made.append(Sample((x, t), option))
                if weight and shape:
                    made.append(Sample((x, t), option | {"weight": rng.uniform(0.5, 2, shape)}))
        for option in options:
            made.append(Sample((make_input(rng, 4, 9), make_target(rng, 4, 9)), always | option))
        return made

    return samples


def unit(rng, *shape):
    return rng.uniform(0.05, 0.95, shape)


def weighted(loss, weight):
    return loss if weight is None else loss * weight


def mse(x, t, reduction="mean", weight=None):
    return reduced(weighted((x - t) ** 2, weight), reduction, None if weight is None else weight.sum())


def l1(x, t, reduction="mean", weight=None):
    return reduced(weighted(np.abs(x - t), weight), reduction, None if weight is None else weight.sum())


def smooth_l1(x, t, reduction="mean", beta=1.0):
    d = np.abs(x - t)
    return reduced(np.where(d < beta, d * d / (2 * beta) if beta else d, d - beta / 2), reduction)


def huber(x, t, reduction="mean", delta=1.0, weight=None):
    d = np.abs(x - t)
    return reduced(weighted(np.where(d <= delta, d * d / 2, delta * (d - delta / 2)), weight), reduction)


def kl_div(x, t, reduction="mean", log_target=False):
    loss = np.exp(t) * (t - x) if log_target else t * (np.log(t) - x)
    if reduction == "batchmean":
        return reduced(loss, "mean", x.shape[0] if x.ndim else 1)
    return reduced(loss, reduction)


def bce(x, t, weight=None, reduction="mean"):
    return reduced(weighted(-(t * np.log(x) + (1 - t) * np.log(1 - x)), weight), reduction)


def bce_with_logits(x, t, weight=None, reduction="mean", pos_weight=1.0):
    p = 1 / (1 + np.exp(-x))
    return reduced(weighted(-(pos_weight * t * np.log(p) + (1 - t) * np.log(1 - p)), weight), reduction)


def bce_with_logits_samples(rng):
    options = {"pos_weight": rng.uniform(0.5, 3, 9), "weight": rng.uniform(0.5, 3, (4, 1))}
    return pairs(options, weight=True, make_target=unit)(rng)


def signs(rng, *shape):
    return rng.choice([-1.0, 1.0], shape)


def hinge(x, t, margin=1.0, reduction="mean"):
    return reduced(np.where(t == 1, x, np.maximum(margin - x, 0)), reduction)


def margin_samples(rng):
    samples = []
    for shape in [(6,), (5, 7), (0, 3), (4, 1)]:
        x, labels = randn(rng, *shape), np.asarray(rng.integers(0, shape[-1], shape[:-1]))
        weight = rng.uniform(0.5, 2, shape[-1])
        for option in [{}, {"p": 2, "reduction": "sum"}, {"margin": 0.4, "weight": weight, "reduction": "none"}]:
            samples.append(Sample((x, labels), option))
    return samples


def multi_margin(x, t, p=1, margin=1.0, weight=None, reduction="mean"):
    rows, labels = x.reshape(-1, x.shape[-1]), t.reshape(-1)
    losses = np.zeros(len(rows))
    for i, (row, label) in enumerate(zip(rows, labels)):
        z = np.maximum(margin - row[label] + np.delete(row, label), 0) ** p
        losses[i] = z.sum() * (1 if weight is None else weight[label]) / len(row)
    return reduced(losses.reshape(t.shape), reduction)


def one_hot_samples(rng):
    samples = [Sample((rng.integers(0, 5, shape),), {"num_classes": 6}) for shape in [(3,), (2, 4), (0,)]]
    return [*samples, Sample((np.array(2),)), Sample((np.array([4, 0]),))]


def one_hot(t, num_classes=-1):
    return (t[..., None] == np.arange(t.max() + 1 if num_classes == -1 else num_classes)).astype(np.int64)


RECORDS = [
    Record("mse_loss", F.mse_loss, pairs(weight=True), mse, (0, 1)),
    Record("l1_loss", F.l1_loss, pairs(weight=True), l1, (0, 1)),
    Record("smooth_l1_loss", F.smooth_l1_loss, pairs({"beta": 0.3}, {"beta": 0.0}), smooth_l1, (0, 1)),
    Record("huber_loss", F.huber_loss, pairs({"delta": 0.3}, weight=True), huber, (0, 1)),
    Record(
        "kl_div",
        F.kl_div,
        pairs({"reduction": "batchmean"}, make_target=unit),
        kl_div,
        (0, 1),
    ),
    Record("kl_div:log_target", F.kl_div, pairs({"reduction": "batchmean"}, log_target=True), kl_div, (0, 1)),
    Record(
        "binary_cross_entropy",
        F.binary_cross_entropy,
        pairs(weight=True, make_input=unit, make_target=unit),
        bce,
        (0, 1),
        tolerance=16,
    ),
    Record(
        "binary_cross_entropy_with_logits",
        F.binary_cross_entropy_with_logits,
        bce_with_logits_samples,
        bce_with_logits,
        (0, 1),
    ),
    Record("hinge_embedding_loss", F.hinge_embedding_loss, pairs({"margin": 0.3}, make_target=signs), hinge),
    Record("multi_margin_loss", F.multi_margin_loss, margin_samples, multi_margin),
    Record("one_hot", F.one_hot, one_hot_samples, one_hot, (), nan=False),
]
