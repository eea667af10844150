"""Records of matrix products."""

from __future__ import annotations

import numpy as np

from fastnn import functional as F
from fastnn import kernels

from . import Record, Sample, randn
from .activation import gelu


def linear_samples(rng):
    shapes = [  # input, outputs
        ((3, 5), 4), ((5,), 4), ((2, 3, 5), 1), ((1, 1), 1), ((0, 5), 4), ((3, 0), 4), ((3, 5), 0), ((2, 0, 3), 2),
        ((64, 400), 120), ((65, 129), 33), ((1, 700), 10), ((7, 2, 17), 31),
    ]  # fmt: skip
    samples = [Sample((randn(rng, *x), randn(rng, n, x[-1]), randn(rng, n))) for x, n in shapes]
    samples.append(Sample((randn(rng, 6, 7), randn(rng, 3, 7))))
    samples.append(Sample((randn(rng, 2, 6, 7), randn(rng, 7), np.array(0.5))))
    return samples


def linear_reference(x, w, b=None):
    y = x @ w.T
    return y if b is None else y + b


def matmul_samples(rng):
    shapes = [
        ((5,), (5,)), ((0,), (0,)), ((3, 5), (5,)), ((5,), (5, 4)), ((3, 5), (5, 4)), ((0, 5), (5, 4)),
        ((3, 0), (0, 4)), ((2, 3, 5), (5, 4)), ((3, 5), (2, 5, 4)), ((2, 3, 5), (2, 5, 4)), ((2, 1, 3, 5), (4, 5, 2)),
        ((4, 3, 5), (5,)), ((5,), (2, 5, 3)), ((0, 3, 5), (5, 4)), ((2, 0, 5), (2, 5, 4)), ((1, 3, 5), (6, 5, 2)),
        ((2, 1, 3, 5), (1, 4, 5, 2)), ((2, 33, 17), (2, 17, 40)), ((97, 65), (65, 35)), ((37, 1030), (1030, 18)),
    ]  # fmt: skip
    return [Sample((randn(rng, *a), randn(rng, *b))) for a, b in shapes]


ACTIVATIONS = {
    None: lambda y: y,
    "relu": lambda y: np.maximum(y, 0),
    "sigmoid": lambda y: 1 / (1 + np.exp(-y)),
    "tanh": np.tanh,
    "silu": lambda y: y / (1 + np.exp(-y)),
    "gelu": gelu,
    "gelu_tanh": lambda y: gelu(y, "tanh"),
}


def gemm_samples(rng):
    samples = []
    for trans_a in (False, True):
        for trans_b in (False, True):
            for m, n, k in [
                (1, 1, 1),
                (6, 16, 9),
                (7, 17, 40),
                (31, 33, 7),
                (14, 65, 2),
                (13, 5, 0),
                (0, 3, 4),
                (97, 40, 70),
            ]:
                a = randn(rng, k, m) if trans_a else randn(rng, m, k)
                b = randn(rng, n, k) if trans_b else randn(rng, k, n)
                bias = [None, randn(rng, n), randn(rng, m, 1)][len(samples) % 3]
                activation = [*ACTIVATIONS][len(samples) % len(ACTIVATIONS)]
                alpha = [1.0, -0.7][m % 2] * (1.0 if k < 10 else 0.1)  # sums of size 1: activations not saturated
                options = {"alpha": alpha, "bias": bias, "activation": activation}
                samples.append(Sample((a, b), {"trans_a": trans_a, "trans_b": trans_b, **options}))
    return samples


def gemm_reference(a, b, *, trans_a=False, trans_b=False, alpha=1.0, bias=None, activation=None):
    y = alpha * ((a.T if trans_a else a) @ (b.T if trans_b else b))
    return ACTIVATIONS[activation](y if bias is None else y + bias)


def gemm_batch_samples(rng):
    return [
        Sample((randn(rng, 3, 5, 7), randn(rng, 3, 7, 4))),
        Sample((randn(rng, 1, 5, 7), randn(rng, 3, 4, 7)), {"trans_b": True}),
        Sample((randn(rng, 3, 7, 5), randn(rng, 1, 7, 17)), {"trans_a": True}),
        Sample((randn(rng, 0, 5, 7), randn(rng, 1, 7, 4))),
        Sample((randn(rng, 40, 17, 33), randn(rng, 40, 33, 19))),
    ]


def gemm_batch_reference(a, b, *, trans_a=False, trans_b=False):
    return (a.swapaxes(1, 2) if trans_a else a) @ (b.swapaxes(1, 2) if trans_b else b)


RECORDS = [
    Record("linear", F.linear, linear_samples, linear_reference, differentiable=(0, 1, 2)),
    Record("matmul", F.matmul, matmul_samples, np.matmul, differentiable=(0, 1)),
    Record("gemm", kernels.gemm, gemm_samples, gemm_reference, differentiable=()),
    Record("gemm_batch", kernels.gemm_batch, gemm_batch_samples, gemm_batch_reference, differentiable=()),
]
