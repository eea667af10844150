"""Sums and extremes against NumPy, and the same bits on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import kernels

SHAPES = [
    ((5,), 0, 1),
    ((100_000,), 0, 1),
    ((40, 70_000), 1, 2),
    ((70_000, 40), 0, 1),
    ((3, 5000, 7, 2), 1, 2),
    ((3, 50, 700), 0, 2),
    ((0, 4), 0, 1),
    ((4, 0), 0, 1),
    ((2, 0, 3), 1, 2),
    ((3, 4), 0, 0),
    ((), 0, 0),
    ((2, 9000), 0, 1),
    ((1000, 1000), 0, 1),
    ((1000, 1000), 1, 2),
]


@pytest.mark.parametrize("shape, begin, end", SHAPES)
def test_sum_middle(shape, begin, end):
    x = np.random.default_rng(0).standard_normal(shape)
    want = x.sum(tuple(range(begin, end)))
    for dtype, units in ((np.float32, 1e-6), (np.float64, 1e-14)):
        y = kernels.sum_middle(x.astype(dtype), begin, end)
        assert y.shape == want.shape and y.dtype == dtype
        np.testing.assert_allclose(y, want, rtol=0, atol=units * max(1.0, np.abs(x).sum() / max(want.size, 1)))


def test_same_bits_on_any_number_of_threads(threads):
    x = np.random.default_rng(0).standard_normal((50, 3000, 3)).astype(np.float32)
    seen = set()
    for count in (1, 2, 3):
        threads(count)
        seen.add(
            b"".join(kernels.sum_middle(x, begin, end).tobytes() for begin, end in ((0, 3), (0, 1), (1, 2), (1, 3)))
        )
    assert len(seen) == 1


def test_dimensions_out_of_range():
    with pytest.raises(ValueError, match=r"dimensions 0[.][.]3 are out of range"):
        kernels.sum_middle(np.zeros((2, 2), np.float32), 0, 3)


EXTREMES = [(1,), (15,), (16,), (63,), (64,), (65,), (130,), (40_000,), (7, 9), (100, 3), (200, 1000), (3, 200, 5)]
EXTREMES += [(70, 4100), (3, 5, 2100), (2, 3, 0)]


@pytest.mark.parametrize("shape", EXTREMES)
@pytest.mark.parametrize("kind", ["plain", "ties", "nan", "all nan", "-inf", "denormals"])
def test_extremes_and_their_places(shape, kind, rng):
    """As NumPy's argmax: of equals the first, and the first NaN before any number."""
    for dtype in (np.float32, np.float64):
        x = rng.standard_normal(shape).astype(dtype)
        if kind == "ties":
            x = np.round(x)
        elif kind == "nan":
            x[rng.random(shape) < 0.02] = np.nan
        elif kind != "plain":
            x[...] = {"all nan": np.nan, "-inf": -np.inf}.get(kind, 0)
        if kind == "denormals":
            x.reshape(-1)[-1:] = np.finfo(dtype).smallest_subnormal
        t = fastnn.tensor(x)
        for dim in range(x.ndim):
            if x.shape[dim] == 0:
                continue
            for ours, numpys in ((t.max, x.argmax), (t.min, x.argmin)):
                values, places = ours(dim)
                want = numpys(axis=dim)
                np.testing.assert_array_equal(places.array, want)
                np.testing.assert_array_equal(
                    values.array, np.take_along_axis(x, np.expand_dims(want, dim), dim).squeeze(dim)
                )
                assert values.dtype == dtype and places.dtype == np.int64
            np.testing.assert_array_equal(t.argmax(dim).array, x.argmax(dim))
            np.testing.assert_array_equal(t.argmin(dim, True).array, x.argmin(dim, keepdims=True))
        if x.size:
            np.testing.assert_array_equal(t.max().array, x.max())
            np.testing.assert_array_equal(t.min().array, x.min())
            assert t.argmax().item() == x.argmax() and t.argmin(keepdim=True).shape == (1,) * x.ndim


def test_extremes_are_the_same_on_any_number_of_threads(threads, rng):
    x = fastnn.tensor(rng.standard_normal((300, 700)).astype(np.float32))
    seen = set()
    for count in (1, 2, 3):
        threads(count)
        seen.add(b"".join(part.array.tobytes() for dim in (0, 1) for part in x.max(dim)) + x.min().array.tobytes())
    assert len(seen) == 1


def test_extremes_of_what_the_kernel_leaves_to_numpy(rng):
    x = rng.standard_normal((6, 5))
    for array in (x.astype(np.float32).T, (x * 10).astype(np.int64), x.astype(np.float16)):
        values, places = fastnn.tensor(array).max(0)
        np.testing.assert_array_equal(values.array, array.max(0))
        np.testing.assert_array_equal(places.array, array.argmax(0))
    value, place = fastnn.tensor(np.float32(3)).max(0)
    assert value.item() == 3 and place.item() == 0
    with pytest.raises(ValueError, match="no elements"):
        fastnn._core.kernels.extreme_middle(np.ones((2, 0, 3), "f"), np.ones((2, 3), "f"), None, 0)


@pytest.mark.parametrize("dims", [(0, 2), (0, 2, 3), (1, 3), (0, 1, 2, 3), (-1,), (0, -1)])
def test_sums_over_dimensions_that_are_no_neighbours(dims, rng):
    x = rng.standard_normal((5, 6, 7, 8))
    for keep in (False, True):
        y = fastnn.tensor(x.astype(np.float32)).sum(dims, keep).array
        np.testing.assert_allclose(y, x.sum(dims, keepdims=keep), rtol=0, atol=1e-4)
        y = fastnn.tensor(x).mean(dims, keep).array
        np.testing.assert_allclose(y, x.mean(dims, keepdims=keep), rtol=0, atol=1e-14)


def test_sums_of_denormals_are_numbers():
    x = np.full(40_000, 1e-45, np.float32)
    assert kernels.sum_middle(x, 0, 1) == pytest.approx(x.sum(dtype=np.float64), rel=1e-3)


def test_the_extreme_of_a_number_has_no_dimension_to_keep():
    assert fastnn.tensor(3.0).max(0, keepdim=True)[0].shape == ()
