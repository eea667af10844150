"""Pooling beyond the records: who wins among equals and NaN, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import functional as F
from fastnn import kernels


@pytest.mark.parametrize("kernel,stride,padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (4, 3, 2), (17, 1, 8)])
def test_the_first_of_equals_wins(kernel, stride, padding, rng):
    x = rng.integers(0, 3, (2, 3, 21, 40)).astype(np.float32)
    y, indices = F.max_pool2d(x, kernel, stride, padding, return_indices=True)
    padded = np.full((2, 3, 21 + 2 * padding, 40 + 2 * padding), -np.inf)
    padded[:, :, padding : padding + 21, padding : padding + 40] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    first = windows.reshape(*windows.shape[:4], -1).argmax(-1)
    h = np.arange(y.shape[2])[:, None] * stride - padding + first // kernel
    w = np.arange(y.shape[3]) * stride - padding + first % kernel
    np.testing.assert_array_equal(indices, h * 40 + w)
    np.testing.assert_array_equal(y, windows.max((-1, -2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel,stride", [(2, 2), (3, 2), (2, 1), (5, 3), (20, 20)])
def test_a_nan_wins_and_is_reported(kernel, stride, dtype):
    x = np.full((1, 41, 43), -np.inf, dtype)
    x[0, 1, 1] = np.nan
    x[0, 0, 0] = np.inf
    y, indices = F.max_pool2d(x, kernel, stride, return_indices=True)
    assert np.isnan(y[0, 0, 0]) and indices[0, 0, 0] == 44
    far = -1, -1
    assert y[0][far] == -np.inf and indices[0][far] == (y.shape[1] - 1) * stride * 43 + (y.shape[2] - 1) * stride
    t = fastnn.tensor(x, requires_grad=True)
    F.max_pool2d(t, kernel, stride).backward(np.ones(y.shape, dtype))
    assert t.grad.array[0, 1, 1] >= 1 and t.grad.array.sum() == y.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", [(2,), (3, 2), (3, 2, 1), (3, 1, 1), ((2, 3), (3, 1), (1, 1), (3, 2))])
def test_taps_give_what_indices_give(dtype, window, rng):
    """Few planes and many, small ones and ones that no block holds: each has loops of its own."""
    small = [(3, 2, 5, 5), (5, 7, 8, 8), (4, 9, 11), (20, 7, 6), (2, 3, 13, 14)]
    for shape in [*small, (2, 28, 28), (3, 16, 16), (5, 70), (1, 1, 9, 67)]:
        x = rng.integers(0, 4, (1, *shape)[-4:] if len(shape) > 2 else (1, *shape)).astype(dtype)
        y, taps = kernels.max_pool2d(x, *window, return_taps=True)
        z, indices = kernels.max_pool2d(x, *window, return_indices=True)
        dy = rng.standard_normal(y.shape).astype(dtype)
        np.testing.assert_array_equal(y, z)
        np.testing.assert_array_equal(y, kernels.max_pool2d(x, *window))
        a = kernels.max_pool2d_taps_backward(dy, taps, x.shape, *window)
        b = kernels.max_pool2d_backward(dy, indices, x.shape)
        assert a.tobytes() == b.tobytes(), shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", [(2,), (3, 2), (3, 2, 1), (3, 1), (3, 1, 1)])
@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 13, 38), (40, 14, 14), (1, 300, 301), (300, 8, 8), (40, 10, 10)])
def test_taps_of_infinities_and_nan(dtype, window, shape, rng):
    """Where the padding, minus infinity, ties with what it surrounds, the element inside wins."""
    values = np.array([np.nan, np.inf, -np.inf, -np.inf, -np.inf, -np.inf, 1], dtype)
    x = rng.choice(values, (1, *shape))
    x[:, : shape[0] // 2] = rng.standard_normal((1, shape[0] // 2, *shape[1:]))  # beside planes without any
    y, taps = kernels.max_pool2d(x, *window, return_taps=True)
    z, indices = kernels.max_pool2d(x, *window, return_indices=True)
    for other in (z, kernels.max_pool2d(x, *window), np.take_along_axis(*rows_of(x, indices), -1).reshape(y.shape)):
        np.testing.assert_array_equal(y, other)
    dy = rng.standard_normal(y.shape).astype(dtype)
    a = kernels.max_pool2d_taps_backward(dy, taps, x.shape, *window)
    assert a.tobytes() == kernels.max_pool2d_backward(dy, indices, x.shape).tobytes()
    total = np.abs(dy).sum()
    assert abs(a.sum(dtype=np.float64) - dy.sum(dtype=np.float64)) < 1e-5 * total


def rows_of(*arrays):
    return [a.reshape(-1, a.shape[-2] * a.shape[-1]) for a in arrays]


def test_out_is_written(rng):
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    for run in [
        lambda out: kernels.max_pool2d(x, 2, out=out),
        lambda out: kernels.avg_pool2d(x, 2, out=out),
        lambda out: kernels.max_pool2d(x, 2, return_taps=True, out=out)[0],
        lambda out: kernels.adaptive_max_pool2d(x, 4, out=out),
        lambda out: kernels.adaptive_avg_pool2d(x, 4, out=out),
    ]:
        fresh, gaps = np.empty((2, 3, 4, 4), np.float32), np.empty((2, 3, 4, 8), np.float32)[..., ::2]
        assert run(fresh) is fresh and run(gaps) is gaps
        np.testing.assert_array_equal(fresh, run(None))
        np.testing.assert_array_equal(gaps, fresh)


X = np.ones((1, 2, 5, 6), np.float32)


@pytest.mark.parametrize(
    "op,x,arguments,message",
    [
        (F.max_pool2d, X, (7,), "window of 7 .* does not fit the input of 5"),
        (F.max_pool2d, X, (3, 1, 2), "padding 2 is more than half"),
        (F.max_pool2d, X, (0,), "'kernel_size' must be at least 1"),
        (F.max_pool2d, X, (2, 0), "'stride' must be at least 1"),
        (F.max_pool2d, X, (2, 1, -1), "'padding' must be at least 0"),
        (F.max_pool2d, X, (2, 1, 0, 0), "'dilation' must be at least 1"),
        (F.max_pool2d, X, (2**70,), "beyond 2\\^31"),
        (F.max_pool2d, X, (2, 2**40), "beyond 2\\^31"),
        (F.max_pool2d, X, (3, 1, 1, 2**40), "beyond 2\\^31"),
        (F.max_pool2d, X[:, :, :1], (2, 1, 1, 2), "without any of the input"),
        (F.max_pool2d, X[0, 0], (2,), r"must be \(C, H, W\) or \(N, C, H, W\)"),
        (F.max_pool2d, X[:, :0], (2,), "empty dimension"),
        (F.max_pool2d, X[..., :0], (2,), "empty dimension"),
        (F.avg_pool2d, X, (2, None, 2), "padding 2 is more than half"),
        (F.avg_pool2d, X, (2, None, 0, False, True, 0), "divisor_override"),
        (F.adaptive_avg_pool2d, X, (-1,), "'output_size' must be at least 0"),
        (F.adaptive_avg_pool2d, X, ((1, 2, 3),), "one size or two"),
        (F.adaptive_max_pool2d, X[:, :, :0], (1,), "empty dimension"),
    ],
)
def test_what_is_refused(op, x, arguments, message):
    with pytest.raises(ValueError, match=message):
        op(x, *arguments)


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="float32 or float64"):
        F.max_pool2d(X.astype(np.int32), 2)
    with pytest.raises(TypeError, match="'kernel_size' must be an int or a pair of ints"):
        F.max_pool2d(X, 2.5)
    with pytest.raises(TypeError, match="'kernel_size' must be an int or a pair of ints"):
        F.max_pool2d(X, (1, 2, 3))


def test_backward_kernels_refuse_positions_outside():
    dy = np.ones((1, 2, 2, 3), np.float32)
    for wrong in (-1, 30, 2**62):
        with pytest.raises(ValueError, match="an index lies outside its plane of 30 elements"):
            kernels.max_pool2d_backward(dy, np.full(dy.shape, wrong), X.shape)
    with pytest.raises(ValueError, match="'indices' must be"):
        kernels.max_pool2d_backward(dy, np.zeros((1, 2, 2, 2), np.int64), X.shape)
    with pytest.raises(ValueError, match="pooling an input of"):
        kernels.max_pool2d_taps_backward(dy[..., :2], np.zeros((1, 2, 2, 2), np.uint8), X.shape, 2)
    with pytest.raises(ValueError, match="more than 256 elements"):
        kernels.max_pool2d(np.ones((1, 20, 20), np.float32), 17, return_taps=True)
    with pytest.raises(ValueError, match="pooling an input of"):
        kernels.avg_pool2d_backward(dy, X.shape, 3)
    with pytest.raises(ValueError, match="no pooling of an input"):
        kernels.adaptive_avg_pool2d_backward(dy, (1, 3, 4, 4))


@pytest.mark.parametrize("planes", [1, 40])
def test_taps_outside_the_window_write_nothing_outside(planes, rng):
    dy = np.ones((planes, 3, 4), np.float32)
    for window in [(2,), (2, 2, 1), (3, 2, 1)]:
        shape = {(2,): (planes, 6, 8), (2, 2, 1): (planes, 4, 6), (3, 2, 1): (planes, 5, 7)}[window]
        dx = kernels.max_pool2d_taps_backward(dy, rng.integers(0, 256, dy.shape).astype(np.uint8), shape, *window)
        assert dx.min() >= 0 and dx.sum() <= dy.size


def test_huge_windows_over_padding():
    """Most of the window is padding: it must be cut before it is visited."""
    y = F.max_pool2d(X, 2**30, 2**20, 2**29)
    assert (y == 1).all()
    y = F.avg_pool2d(X, 2**16, 2**10, 2**15, count_include_pad=False)
    np.testing.assert_allclose(y, 1)
