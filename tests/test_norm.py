"""Normalisation beyond the records: running statistics, large offsets, errors, PyTorch beside it."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import functional as F
from fastnn import kernels, nn


def test_running_statistics_move_in_place(rng):
    x = rng.standard_normal((6, 3, 4)).astype(np.float32)
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    F.batch_norm(x, mean, var, training=True, momentum=0.3)
    np.testing.assert_allclose(mean, 0.3 * x.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, 0.7 + 0.3 * x.var((0, 2), ddof=1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 3, 20, 20), (4096, 9)])
def test_a_large_offset_costs_no_digits(shape, rng):
    x = (rng.standard_normal(shape) + 10000).astype(np.float32)
    exact, axes = x.astype(np.float64), (0, *range(2, len(shape)))
    want = (exact - exact.mean(axes, keepdims=True)) / exact.std(axes, keepdims=True)
    np.testing.assert_allclose(F.batch_norm(x, None, None, training=True, eps=0.0), want, rtol=2e-6, atol=2e-6)
    rows = exact.reshape(4, -1)
    want = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    np.testing.assert_allclose(F.layer_norm(x.reshape(4, -1), rows.shape[1], eps=0.0), want, rtol=2e-6, atol=2e-6)


def test_an_empty_batch_changes_nothing():
    mean, var = np.full(3, 5, np.float32), np.full(3, 7, np.float32)
    weight = fastnn.tensor(np.ones(3, np.float32), requires_grad=True)
    y = F.batch_norm(fastnn.tensor(np.zeros((0, 3, 4), np.float32)), mean, var, weight, training=True)
    y.sum().backward()
    assert y.shape == (0, 3, 4) and (mean == 5).all() and (var == 7).all() and (weight.grad.array == 0).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: F.batch_norm(x[:1, :, :1, :1], None, None, training=True), r"1 \* 1 = 1"),
        (lambda x: F.batch_norm(x[:0], None, None, np.ones(4, np.float32), training=True), "'weight' must be"),
        (lambda x: kernels.batch_norm(x[:0]), "more than one value"),
        (lambda x: F.batch_norm(x, None, None), "running_mean"),
        (lambda x: F.batch_norm(x, None, None, np.ones(4, np.float32), training=True), r"\(3,\)"),
        (lambda x: F.batch_norm(x[0, 0, 0], None, None, training=True), r"\(N, C, ...\)"),
        (lambda x: F.batch_norm(x, np.zeros(3, np.float32), np.ones(2, np.float32), training=True), r"'running_var'"),
        (lambda x: F.layer_norm(x, (3, 5)), "normalized_shape"),
        (lambda x: F.layer_norm(x, 5, np.ones(4, np.float32)), r"\(5,\)"),
        (lambda x: F.local_response_norm(x, 0), "at least 1"),
        (lambda x: F.local_response_norm(x[0, 0], 2), "3 or more"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((2, 3, 4, 5), np.float32))


def test_batch_norm_layer_beside_pytorch(rng):
    torch = pytest.importorskip("torch")
    ours, theirs = nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    for step in range(4):
        x = rng.standard_normal((5, 3, 4, 6)).astype(np.float32)
        if step == 3:
            ours.eval()
            theirs.eval()
        a = fastnn.tensor(x, requires_grad=True)
        b = torch.from_numpy(x).requires_grad_()
        y, z = ours(a), theirs(b)
        (y * y * y).sum().backward()
        (z * z * z).sum().backward()
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-4)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(np.asarray(ours.state_dict()[key]), value.numpy(), rtol=1e-5, err_msg=key)


def test_others_beside_pytorch(rng):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((4, 9, 6, 5)).astype(np.float32)
    for size in (1, 2, 5, 20):
        got = F.local_response_norm(x, size, 0.3, 0.75, 1.2)
        want = torch.nn.functional.local_response_norm(torch.from_numpy(x), size, 0.3, 0.75, 1.2).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=f"size {size}")
    want = torch.nn.functional.layer_norm(torch.from_numpy(x), (6, 5)).numpy()
    np.testing.assert_allclose(F.layer_norm(x, (6, 5)), want, rtol=1e-4, atol=1e-5)
