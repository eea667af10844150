"""Sums over neighbouring dimensions against NumPy in float64, and the same bits on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

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
