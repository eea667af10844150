"""Losses of arrays that are cut into chunks: values, gradients, and the same bits on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import kernels

N = 70_001  # two chunks and an odd rest
LOSSES = {
    "mse": lambda x, t: (x - t) ** 2,
    "smooth_l1": lambda x, t: np.where(np.abs(x - t) < 0.5, (x - t) ** 2, np.abs(x - t) - 0.25),
    "kl_div": lambda x, t: t * (np.log(t) - x),
    "bce": lambda x, t: -(t * np.log(x) + (1 - t) * np.log1p(-x)),
    "bce_logits": lambda x, t: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0) - x * t,
}


@pytest.mark.parametrize("kind", LOSSES)
def test_large_arrays(kind, rng):
    x, t, w = (rng.uniform(1e-6, 1, N).astype(np.float32) for _ in range(3))
    parameter = 0.5 if kind == "smooth_l1" else 1.0
    each = LOSSES[kind](x.astype(np.float64), t.astype(np.float64)) * w
    y = kernels.pointwise_loss(kind, x, t, w, parameter=parameter, divisor=N)
    np.testing.assert_allclose(y, each.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        kernels.pointwise_loss(kind, x, t, w, parameter=parameter, reduced=False), each, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", LOSSES)
def test_threads_do_not_change_the_bits(kind, rng):
    x, t = (rng.uniform(0.01, 1, N).astype(np.float32) for _ in range(2))
    dy, before, seen = np.array(0.3, np.float32), fastnn.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            fastnn.set_num_threads(threads)
            grads = kernels.pointwise_loss_backward(kind, dy, x, t, need_target=True)
            seen.add((kernels.pointwise_loss(kind, x, t).tobytes(), *(g.tobytes() for g in grads)))
    finally:
        fastnn.set_num_threads(before)
    assert len(seen) == 1


def test_a_small_probability_keeps_its_digits():
    x = np.array([1e-9, 3e-5, 0.5, 1.0, 0.0], np.float32)
    y = kernels.pointwise_loss("bce", x, np.zeros_like(x), reduced=False)
    np.testing.assert_allclose(y, [1e-9, 3.000045e-5, np.log(2), 100, 0], rtol=1e-6)
