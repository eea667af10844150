"""Pooling, normalisation and padding on CUDA, where the ops' records are too small: against the CPU's kernels.

Planes and channels cut into pieces, a warp for a long window, unaligned arrays, batches of several launches, the order
of additions in max pooling's gradient, moments far from 0.
"""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import kernels
from fastnn.cuda import norm, pool, shapes, sources


@pytest.fixture
def device(gpu):
    """Not the CPU, whose kernels are the reference."""
    return gpu


def both(device, function, *args, **kwargs):
    """Pairs of results: the CPU's and the device's, as NumPy arrays."""
    found = []
    for put in (lambda x: x, device.put):
        result = function(*map(put, args), **{name: put(x) for name, x in kwargs.items()})
        found.append([device.get(r) for r in (result if isinstance(result, tuple) else (result,))])
    return list(zip(*found))


def same_bits(device, function, *args, **kwargs):
    for want, got in both(device, function, *args, **kwargs):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def close(device, function, *args, tolerance=16, **kwargs):
    for want, got in both(device, function, *args, **kwargs):
        assert got.dtype == want.dtype
        limit = tolerance * np.finfo(want.dtype).eps * max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, rtol=0, atol=limit)


def test_dividers(rng):
    """The kernels' multiplications against Python's division: at powers of two, multiples and their neighbours."""
    divisors = [1, 2, 3, 5, 7, 31, 32, 33, 641, 2**30 - 1, 2**30, 2**31 - 1, *rng.integers(1, 2**31, 50).tolist()]
    for d in divisors:
        by = shapes.divider(d)
        largest = (2**31 - 1) // d * d
        for n in {0, d - 1, d, largest - 1, largest, 2**31 - 1, *rng.integers(0, 2**31, 20).tolist()}:
            assert n * (by & 0xFFFFFFFF) >> (by >> 32) == n // d, (n, d)


@pytest.mark.parametrize(
    "n, least, unit, most", [(0, 64, 8, 5), (1, 64, 8, 5), (5000, 64, 8, 5), (10**6, 8192, 1024, 7)]
)
def test_pieces_cover_everything_once(n, least, unit, most):
    count, length = shapes.pieces(n, least, unit, most)
    assert count <= most and length % unit == 0 and (count - 1) * length <= n <= count * length


# -- pooling ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "shape, kernel",
    [
        ((1, 1, 110, 101), {"kernel_size": 3, "stride": 2}),  # larger than the shared memory of a block
        ((3, 700, 4, 5), {"kernel_size": 3, "stride": 1}),  # small: several planes a block
        ((2, 3, 30, 31), {"kernel_size": 5, "stride": 1, "padding": 2}),  # up to 25 windows meet in an element
    ],
)
def test_max_pool_gradient_adds_in_reading_order(device, rng, shape, kernel):
    x = rng.standard_normal(shape).astype(np.float32)
    y, indices = kernels.max_pool2d(x, return_indices=True, **kernel)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    same_bits(device, kernels.max_pool2d_backward, dy, indices, shape)
    with device.schedule(threads="random", blocks="reverse", seed=3):
        same_bits(device, kernels.max_pool2d_backward, dy, indices, shape)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (2, 3, 8, 6)])  # the second in pairs
@pytest.mark.parametrize("window", [(2,), (3, 2), (3, 2, 1), (3, 1, 1), ((2, 3), (3, 1), (1, 1), (3, 2))])
def test_max_pool_taps_and_their_gradient(device, rng, window, shape, ceil_mode):
    x = rng.integers(0, 3, shape).astype(np.float32)
    window = (*window, *(None, 0, 1)[len(window) - 1 :], ceil_mode)
    y, taps = kernels.max_pool2d(x, *window, return_taps=True)
    same_bits(device, kernels.max_pool2d, x, *window, return_taps=True)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    same_bits(device, kernels.max_pool2d_taps_backward, dy, taps, x.shape, *window)


def test_max_pool_gradient_of_many_equal_indices(device, rng):
    """700 turns in one element: the count of turns begins anew on the way."""
    dy = rng.standard_normal((1, 7, 100)).astype(np.float32)
    same_bits(device, kernels.max_pool2d_backward, dy, np.full(dy.shape, 3), (1, 2, 2))


def test_max_pool_gradient_leaves_out_what_lies_outside(device):
    dy, indices = np.ones((1, 1, 4), np.float32), np.array([[[-1, 6, 1, 2**40]]])
    dx = kernels.max_pool2d_backward(device.put(dy), device.put(indices), (1, 2, 3))
    np.testing.assert_array_equal(device.get(dx), [[[0, 1, 0], [0, 0, 0]]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", [{"kernel_size": 3, "stride": 2}, {"kernel_size": (6, 7), "stride": 1}])
def test_which_maximum_wins(device, rng, dtype, kernel):
    """The first of equals, the last of several NaN: by one thread, and by a warp."""
    x = rng.integers(0, 3, (2, 3, 9, 11)).astype(dtype)
    same_bits(device, kernels.max_pool2d, x, return_indices=True, **kernel)
    x[rng.random(x.shape) < 0.1] = np.nan
    same_bits(device, kernels.max_pool2d, x, return_indices=True, **kernel)
    same_bits(device, kernels.adaptive_max_pool2d, x, (2, 1), return_indices=True)
    same_bits(device, kernels.max_pool2d, x, 2, return_taps=True)


def test_adaptive_windows_of_a_warp(device, rng):
    x = rng.standard_normal((2, 13, 29))
    close(device, kernels.adaptive_avg_pool2d, x, (2, 3))
    same_bits(device, kernels.adaptive_max_pool2d, x, (2, 3), return_indices=True)


def test_batches_beyond_one_launch(device, rng, monkeypatch):
    """A batch that one launch cannot number goes in several, cut between planes (and images)."""
    x = rng.standard_normal((3, 2, 8, 6)).astype(np.float32)
    y, indices = kernels.max_pool2d(x, 3, 1, return_indices=True)
    _, taps = kernels.max_pool2d(x, 2, return_taps=True)
    dy, small = rng.standard_normal(y.shape).astype(np.float32), rng.standard_normal(taps.shape).astype(np.float32)
    weight = rng.standard_normal(2).astype(np.float32)
    before = device.gpu.launches if device.emulated else 0
    monkeypatch.setattr(shapes, "LIMIT", 120)
    same_bits(device, kernels.max_pool2d, x, 3, 1, return_indices=True)
    same_bits(device, kernels.max_pool2d_backward, dy, indices, x.shape)
    same_bits(device, kernels.max_pool2d, x, 2, return_taps=True)
    same_bits(device, kernels.max_pool2d_taps_backward, small, taps, x.shape, 2)
    close(device, kernels.avg_pool2d, x, 3, 1)
    close(device, kernels.avg_pool2d_backward, dy, x.shape, 3, 1)
    same_bits(device, kernels.pad, x, (1, 2, 3, 1), mode="reflect")
    if device.emulated:
        assert device.gpu.launches - before >= 5 * 3 + 1
    with pytest.raises(ValueError, match="max_pool2d: 120 elements of one image or plane are more than"):
        kernels.max_pool2d(device.put(np.zeros((1, 12, 10), np.float32)), 2)
    close(device, kernels.batch_norm_apply, x[:, :, :4], weight, weight**2, weight, weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unaligned_arrays(device, rng, dtype):
    """A contiguous part of an array may begin anywhere: no 16 bytes at once then."""
    whole = rng.standard_normal((5, 2, 8, 8)).astype(dtype).reshape(-1)
    shape = (2, 2, 8, 8)
    part = lambda x: x[1 : 1 + 256].reshape(shape)  # noqa: E731
    x, ours = part(whole), part(device.put(whole))
    for function in (
        lambda a: kernels.max_pool2d(a, 2, return_taps=True)[0],
        lambda a: kernels.batch_norm(a)[0],
        lambda a: kernels.layer_norm(a.reshape(32, 8))[0],
        lambda a: kernels.pad(a, (0, 0, 1, 2)),
    ):
        np.testing.assert_allclose(device.get(function(ours)), function(x), rtol=1e-5, atol=1e-5)


# -- normalisation ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "shape",
    [
        (2, 2, 100, 101),  # two pieces of a channel, rows not aligned
        (3, 1, 6000),  # three pieces, packs
        (200, 3, 5),  # four pieces of columns, five to a channel
        (130, 40),  # columns of one element
    ],
)
def test_batch_norm_in_pieces(device, rng, shape):
    x = (rng.standard_normal(shape) * 2 + 100).astype(np.float32)
    x.reshape(-1)[0] = -1000.0  # the first element, from which moments are taken, far from all others
    dy, weight = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(shape[1]).astype(np.float32)
    _, mean, var = kernels.batch_norm(x, weight, weight)
    close(device, kernels.batch_norm, x, weight, weight, tolerance=64)
    close(device, kernels.batch_norm_backward, dy, x, mean, var, weight, tolerance=64)
    assert norm._sums("batch_norm", device.put(x.reshape(*shape[:2], -1))).parts > 1


@pytest.mark.parametrize("shape", [(8, 3, 50), (64, 5)])
def test_batch_norm_far_from_zero(device, rng, shape):
    """At an offset of 1e4 float32 holds three digits of x; none more may be lost."""
    x = (rng.standard_normal(shape) + 1e4).astype(np.float32)
    y, _, var = (device.get(a) for a in kernels.batch_norm(device.put(x)))
    wide = x.astype(np.float64)
    axes = (0, *range(2, x.ndim))
    want = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, want, atol=1e-5)
    np.testing.assert_allclose(var, wide.var(axes), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 1500), (2, 2050), (300, 35)])
def test_layer_norm_of_long_rows_and_many(device, rng, dtype, shape):
    x, dy = (rng.standard_normal(shape).astype(dtype) + 50 for _ in range(2))
    weight = rng.standard_normal(shape[1]).astype(dtype)
    _, mean, rstd = kernels.layer_norm(x, weight, weight)
    close(device, kernels.layer_norm, x, weight, weight, tolerance=64)
    close(device, kernels.layer_norm_backward, dy, x, mean, rstd, weight, tolerance=256)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("channels", [8, 9, 70])
def test_local_response_over_several_walks(device, rng, size, channels):
    x, dy = (rng.standard_normal((2, channels, 7)) for _ in range(2))
    _, s = kernels.local_response_norm(x, size, alpha=0.5)
    close(device, kernels.local_response_norm, x, size, alpha=0.5)
    close(device, kernels.local_response_norm_backward, dy, x, s, size, alpha=0.5)


def test_pool_shares_its_budget_with_the_kernel():
    text = (sources.folder() / "cuda" / "max_pool.cu").read_text()
    assert f"SUM_BYTES = {pool.SUM_BYTES // 1024} * 1024" in text
