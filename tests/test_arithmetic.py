"""Arithmetic of CPU tensors on our kernels: NumPy's bits for every way to broadcast, NaN and denormals included."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import tensor
from fastnn.kernels.arithmetic import quick

BINARY = (np.add, np.subtract, np.multiply, np.divide)
SHAPES = [
    ((), ()),
    ((1, 1), (1, 1)),
    ((5,), (1,)),
    ((3, 4), (3, 4)),
    ((7, 10), (10,)),
    ((500, 3), (3,)),
    ((300, 1000), (1000,)),
    ((300, 1000), (300, 1)),
    ((9, 5000), (5000,)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 4, 5), (1, 3, 1, 5)),
    ((2, 1, 4, 1), (1, 3, 1, 5)),
    ((4, 1, 1, 1), (1, 2, 3, 70)),
    ((3, 1), (1, 40_001)),
    ((2, 40_000), (2, 1)),
    ((70_000,), ()),
    ((0, 3), (3,)),
    ((1, 1, 1, 1, 1, 2, 2, 3), (2, 1, 3)),
]


def numbers(shape, dtype, seed=0):
    """Of every size, denormals and what is special among them."""
    rng = np.random.default_rng(seed)
    range_ = (-42, 38) if dtype == np.float32 else (-320, 300)
    with np.errstate(all="ignore"):
        x = np.asarray(rng.standard_normal(shape) * 10.0 ** rng.integers(*range_, shape), dtype)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
    return np.where(rng.random(shape) < 0.1, special[rng.integers(0, 5, shape)], x).astype(dtype)


def same_bits(y, want):
    """But for a NaN's sign, which is the CPU's to choose."""
    assert y.shape == want.shape and y.dtype == want.dtype
    bits = f"u{want.itemsize}"
    np.testing.assert_array_equal(np.isnan(y), np.isnan(want))
    keep = ~np.isnan(want)
    np.testing.assert_array_equal(y[keep].view(bits), want[keep].view(bits))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("a, b", SHAPES)
def test_numpys_bits(a, b, dtype):
    for left, right in ((a, b), (b, a)):
        x, y = numbers(left, dtype), numbers(right, dtype, 1)
        for function in BINARY:
            with np.errstate(all="ignore"):
                want = np.asarray(function(x, y))
            found = quick(function, x, y)
            assert found is not None, "must not be left to NumPy"
            same_bits(found, want)
        for function in (np.negative, np.absolute, np.sqrt):
            with np.errstate(all="ignore"):
                want = np.asarray(function(x))
            same_bits(quick(function, x), want)


def test_what_is_written_past_the_caches():
    """16 MiB and more; rows of a whole number of vectors, and not."""
    for shape, other in (
        ((2048, 2064), (2048, 1)),
        ((2048, 2064), (2064,)),
        ((2048, 2050), (2048, 1)),
        ((65, 65_536), (65_536,)),
    ):
        x, y = np.ones(shape, np.float32), np.arange(np.prod(other), dtype=np.float32).reshape(other)
        np.testing.assert_array_equal(quick(np.add, x, y), x + y)


@pytest.mark.parametrize(
    "x", [np.ones((4, 6), np.float32).T, np.ones(3, np.int64), np.ones(3, np.float16), np.ones(3, ">f4")]
)
def test_what_numpy_does(x):
    assert quick(np.add, x, x) is None and quick(np.negative, x) is None
    y = tensor(x) + tensor(x)
    np.testing.assert_array_equal(y.array, x + x)


def test_shapes_that_do_not_broadcast_raise():
    x, y = np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match=r"add: shapes \(2, 3\) and \(3, 2\) do not broadcast"):
        tensor(x) + tensor(y)
    with pytest.raises(ValueError, match="do not broadcast to y"):
        fastnn._core.kernels.add(x, y, np.empty((3, 3), np.float32))
    with pytest.raises(ValueError, match="fewer dimensions"):
        fastnn._core.kernels.add(x, x, np.empty(6, np.float32))


def test_same_bits_on_any_number_of_threads(threads):
    x, row, column = (numbers(s, np.float32) for s in ((300, 1000), (1000,), (300, 1)))
    seen = set()
    for count in (1, 2, 3):
        threads(count)
        seen.add(b"".join(quick(np.multiply, x, y).tobytes() for y in (x, row, column)))
    assert len(seen) == 1


def test_gradients_of_repeated_operands(rng):
    x, row, column, image, channel = (
        tensor(rng.standard_normal(s), requires_grad=True) for s in ((40, 30), (30,), (40, 1), (3, 5, 4, 4), (5, 1, 1))
    )
    (x * row / (column * column + 1)).sum().backward()
    rows, columns = row.array, column.array**2 + 1
    np.testing.assert_allclose(row.grad.array, (x.array / columns).sum(0), rtol=1e-12)
    np.testing.assert_allclose(x.grad.array, np.broadcast_to(rows / columns, x.shape), rtol=1e-12)
    want = (-x.array * rows / columns**2 * 2 * column.array).sum(1, keepdims=True)
    np.testing.assert_allclose(column.grad.array, want, rtol=1e-12)
    (image * channel).sum().backward()
    np.testing.assert_allclose(channel.grad.array, image.array.sum((0, 2, 3)).reshape(5, 1, 1), rtol=1e-12)
    assert channel.grad.shape == channel.shape


def test_clip_keeps_nan_and_takes_one_bound():
    x = np.array([np.nan, -np.inf, -2, 0.5, 2, np.inf], np.float32)
    for low, high in ((-1, 1), (None, 1), (-1, None), (1, -1), (np.nan, 1)):
        np.testing.assert_array_equal(tensor(x).clip(low, high).array, np.clip(x, low, high))
    t = tensor(x, requires_grad=True)
    t.clip(-2, 0.5).sum().backward()
    assert t.grad.array.tolist() == [0, 0, 1, 1, 0, 0]
