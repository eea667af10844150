"""Random kernels against the NumPy reference, published answers and their distributions; dropout; constructors."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import functional as F
from fastnn import kernels, philox

# Random123's known answers (kat_vectors): counter, key, result of philox4x32-10.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
]


def test_published_answers():
    (counter, key, words), (last, last_key, last_words) = KNOWN
    got = kernels.random_bits(4, key[0] | key[1] << 32, counter[2] | counter[3] << 32)
    assert " ".join(f"{w:08x}" for w in got) == words
    got = philox.blocks(np.array([last[0] | last[1] << 32], np.uint64), last_key[0] | last_key[1] << 32, 2**64 - 1)
    assert " ".join(f"{w:08x}" for w in got[0]) == last_words


@pytest.mark.parametrize("n", [0, 1, 3, 4, 63, 64, 65, 16384, 16385, 50001])
@pytest.mark.parametrize("seed, stream", [(0, 0), (2**64 - 1, 2**63 + 5), (1234567890123456789, 1), (-1, 7)])
def test_bits_are_the_reference_s(n, seed, stream):
    np.testing.assert_array_equal(kernels.random_bits(n, seed, stream), philox.words(n, seed, stream))


def test_uniform_is_the_words_scaled():
    n, seed, stream = 40001, 5, 9
    words = philox.words(2 * n, seed, stream).astype(np.uint64)
    got = kernels.uniform((n,), seed=seed, stream=stream)
    np.testing.assert_array_equal(got, ((words[:n] >> np.uint64(8)) * 2.0**-24).astype(np.float32))
    got = kernels.uniform((n,), seed=seed, stream=stream, dtype=np.float64)
    np.testing.assert_array_equal(got, ((words[0::2] << np.uint64(32) | words[1::2]) >> np.uint64(11)) * 2.0**-53)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_stays_below_high(dtype):
    low = dtype(1)
    high = np.nextafter(low, dtype(2))
    assert (kernels.uniform((1000,), low, high, seed=0, stream=0, dtype=dtype) == low).all()
    y = kernels.uniform((100_000,), -3, 5, seed=0, stream=1, dtype=dtype)
    assert y.min() >= -3 and y.max() < 5 and abs(y.mean() - 1) < 0.03 and abs(y.var() - 64 / 12) < 0.05


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 100_001])
def test_normal(n, dtype):
    y = kernels.normal((n,), 2, 3, seed=1, stream=2, dtype=dtype)
    assert y.shape == (n,) and y.dtype == dtype and np.isfinite(y).all()
    words = philox.words(4 * n + 4, 1, 2).astype(np.float64)
    if dtype == np.float32:
        u, t = (words[0::2] + 1) * 2.0**-32, words[1::2] * 2.0**-32
    else:
        pair = (words[0::2] * 2.0**32 + words[1::2]) * 2.0**-64
        u, t = 1 - pair[0::2], pair[1::2]
    r = np.sqrt(-2 * np.log(u))
    want = 2 + 3 * np.stack([r * np.cos(2 * np.pi * t), r * np.sin(2 * np.pi * t)], -1).reshape(-1)[:n]
    np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)
    if n > 1000:
        z = (y.astype(np.float64) - 2) / 3
        assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01 and abs((z**4).mean() - 3) < 0.1


def test_same_bits_on_any_number_of_threads(threads):
    seen = set()
    for count in (1, 2, 3):
        threads(count)
        made = [kernels.uniform((70_001,), seed=3, stream=4), kernels.normal((70_001,), seed=3, stream=4)]
        seen.add(b"".join(y.tobytes() for y in made))
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
def test_dropout_keeps_the_right_ones(p, dtype):
    fastnn.manual_seed(11)
    x = np.arange(1, 40_002, dtype=dtype)
    y = F.dropout(x, p)
    keep = philox.words(x.size, 11, 0) < (1 - p) * 2.0**32
    np.testing.assert_array_equal(y, np.where(keep, x * (dtype(1 / (1 - p)) if p < 1 else 0), 0))
    assert abs(keep.mean() - (1 - p)) < 0.02


def test_dropout_gradient_uses_the_same_mask_and_streams_differ():
    x = fastnn.ones(1000, requires_grad=True)
    y = F.dropout(x, 0.3)
    y.backward(np.ones(1000, np.float32))
    np.testing.assert_array_equal(x.grad.array, y.array)
    assert not np.array_equal(F.dropout(x, 0.3).array, y.array)


def test_dropout2d_drops_whole_maps():
    fastnn.manual_seed(0)
    y = F.dropout2d(np.ones((20, 30, 3, 5), np.float32), 0.25)
    maps = y.reshape(600, 15)
    assert (maps == maps[:, :1]).all() and set(np.unique(maps)) == {np.float32(0), np.float32(1 / 0.75)}
    assert 0.65 < (maps[:, 0] != 0).mean() < 0.85


def test_dropout_that_does_nothing_takes_no_stream():
    fastnn.manual_seed(0)
    x = np.ones(3, np.float32)
    assert F.dropout(x, 0.5, training=False) is x and F.dropout(x, 0.0) is x
    assert fastnn.get_rng_state() == (0, 0)
    F.dropout(x, 0.5, inplace=True)
    assert fastnn.get_rng_state() == (0, 1) and set(x) <= {0, 2}


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), float("inf")])
@pytest.mark.parametrize("op", [F.dropout, F.dropout2d])
def test_dropout_rejects(op, p):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\]"):
        op(np.ones((2, 2), np.float32), p, training=False)


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: kernels.uniform((3,), 2, 1, seed=0, stream=0), "low must not exceed high"),
        (lambda: kernels.uniform((3,), 0, float("inf"), seed=0, stream=0), "finite"),
        (lambda: kernels.uniform((-3,), seed=0, stream=0), "negative size"),
        (lambda: kernels.normal((3,), 0, -1, seed=0, stream=0), "std must not be negative"),
        (lambda: kernels.random_bits(-1, 0), "at least 0"),
        (lambda: kernels.dropout(np.ones(5, np.float32), 0.5, 0, 0, 2), "whole groups of 2"),
        (lambda: fastnn.zeros(2, -1), "negative size"),
        (lambda: fastnn.rand(-1), "negative size"),
        (lambda: fastnn.arange(0, 3, 0), "step 0"),
    ],
)
def test_bad_arguments(make, error):
    with pytest.raises(ValueError, match=error):
        make()


def test_constructors():
    assert fastnn.zeros(2, 3).shape == fastnn.zeros((2, 3)).shape == (2, 3)
    assert fastnn.zeros().shape == () and fastnn.ones(2).dtype == np.float32
    assert fastnn.ones(2, dtype=np.int64).tolist() == [1, 1]
    assert fastnn.full((2,), 7).dtype == np.int64 and fastnn.full((2,), 7.0).dtype == np.float32
    assert fastnn.full((), True).dtype == np.bool_
    assert fastnn.arange(4).tolist() == [0, 1, 2, 3] and fastnn.arange(4).dtype == np.int64
    assert fastnn.arange(1, 2, 0.25).dtype == np.float32 and fastnn.arange(3, 0, -1).tolist() == [3, 2, 1]
    assert fastnn.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    like = fastnn.ones_like(fastnn.zeros(2, dtype=np.float64), requires_grad=True)
    assert like.dtype == np.float64 and like.requires_grad
    array = np.zeros(3, np.float32)
    fastnn.from_numpy(array).fill_(2)
    assert array.tolist() == [2, 2, 2]
    with pytest.raises(TypeError, match="expected a NumPy array"):
        fastnn.from_numpy([1, 2])


def test_random_constructors_repeat_from_the_seed():
    fastnn.manual_seed(4)
    first = [fastnn.rand(5), fastnn.randn(2, 3, dtype=np.float64)]
    fastnn.manual_seed(4)
    again = [fastnn.rand(5), fastnn.randn((2, 3), dtype=np.float64)]
    assert all(a.tolist() == b.tolist() for a, b in zip(first, again))
    assert fastnn.rand(5).tolist() != first[0].tolist() and fastnn.randn(()).shape == ()
