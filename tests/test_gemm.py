"""What records cannot say of GEMM: sizes beyond the blocks, what `out` holds, accuracy, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastnn
from fastnn import kernels
from fastnn.functional import linear, matmul

TRANSPOSES = list(itertools.product((False, True), repeat=2))


def operands(rng, m, n, k, trans_a=False, trans_b=False, dtype=np.float32):
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    stored_a = np.ascontiguousarray(a.T) if trans_a else a
    stored_b = np.ascontiguousarray(b.T) if trans_b else b
    return a, b, stored_a, stored_b


def limit(a, b):
    """The bound of a float sum, with a constant for random signs."""
    return (
        2
        * np.finfo(a.dtype).eps
        * np.sqrt(a.shape[1] + 1)
        * (np.abs(a).max() * np.abs(b).max() if a.size and b.size else 1)
    )


@pytest.mark.parametrize("trans_a, trans_b", TRANSPOSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_size_up_to_and_around_the_tiles(trans_a, trans_b, dtype, rng):
    for m, n in itertools.product(
        [*range(1, 18), 27, 28, 29, 40], [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 65]
    ):
        k = (m * 7 + n * 5) % 41
        a, b, stored_a, stored_b = operands(rng, m, n, k, trans_a, trans_b, dtype)
        y = kernels.gemm(stored_a, stored_b, trans_a=trans_a, trans_b=trans_b)
        assert np.abs(y - a.astype(np.float64) @ b.astype(np.float64)).max() <= limit(a, b), (m, n, k)


BEYOND_BLOCKS = [(97, 257, 1030), (2060, 35, 130), (29, 1100, 513), (300, 300, 300), (5, 3000, 700), (1100, 9, 2050)]


@pytest.mark.parametrize("trans_a, trans_b", TRANSPOSES)
def test_beyond_the_blocks_the_same_on_any_threads(trans_a, trans_b, rng, threads):
    for m, n, k in BEYOND_BLOCKS:
        a, b, stored_a, stored_b = operands(rng, m, n, k, trans_a, trans_b)
        bias, seen = rng.standard_normal(n).astype(np.float32), set()
        for count in (1, 2, 3):
            threads(count)
            y = kernels.gemm(stored_a, stored_b, trans_a=trans_a, trans_b=trans_b, bias=bias, activation="relu")
            seen.add(y.tobytes())
        want = np.maximum(a.astype(np.float64) @ b.astype(np.float64) + bias, 0)
        assert np.abs(y - want).max() <= limit(a, b), (m, n, k)
        assert len(seen) == 1, (m, n, k)


def test_a_row_has_the_same_bits_in_any_batch(rng):
    for n, k in [(10, 84), (120, 400), (300, 1100)]:
        a, _, _, w = operands(rng, 130, n, k, trans_b=True)
        whole = kernels.gemm(a, w, trans_b=True)
        for begin, end in [(0, 1), (5, 8), (3, 64), (7, 107)]:
            part = kernels.gemm(a[begin:end], w, trans_b=True)
            assert part.tobytes() == whole[begin:end].tobytes(), (n, k, begin, end)


@pytest.mark.parametrize(("n", "k"), [(300, 1100), (5001, 70), (33, 9000)])
def test_few_rows_past_a_large_matrix(n, k, rng, threads):
    """It streams past them in blocks: as exact, and to the bit what the same rows give among others."""
    a, w, bias = (rng.standard_normal(s).astype(np.float32) for s in [(40, k), (k, n), n])
    want = np.maximum(2 * (a.astype(np.float64) @ w) + bias, 0)
    whole = kernels.gemm(a, w, alpha=2.0, bias=bias, activation="relu")
    np.testing.assert_allclose(whole, want, atol=1e-6 * k**0.5 * 8)
    for count in (1, 2, 3):
        threads(count)
        for m in (1, 2, 3, 4, 5):
            part = kernels.gemm(a[:m], w, alpha=2.0, bias=bias, activation="relu")
            turned = kernels.gemm(a[:m].T.copy(), w, trans_a=True, alpha=2.0, bias=bias, activation="relu")
            assert part.tobytes() == turned.tobytes() == whole[:m].tobytes(), (m, count)


def test_error_is_within_twice_numpys(rng):
    for m, n, k in [(64, 120, 400), (200, 200, 200), (64, 64, 4096)]:
        a, b, *_ = operands(rng, m, n, k)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        ours, numpys = (np.sqrt(np.mean((y - exact) ** 2)) for y in (kernels.gemm(a, b), a @ b))
        assert ours <= 2 * numpys, (m, n, k, ours, numpys)


@pytest.mark.parametrize("shape", [(7, 17, 40), (65, 40, 600), (1, 1, 1), (3, 4, 0)])
@pytest.mark.parametrize("alpha, beta", [(1.0, 0.0), (1.0, 1.0), (-0.5, 1.0), (2.0, -0.25), (0.0, 0.0), (0.0, 1.0)])
def test_alpha_and_beta(shape, alpha, beta, rng):
    a, b, *_ = operands(rng, *shape)
    c = rng.standard_normal((shape[0], shape[1])).astype(np.float32)
    want = alpha * (a.astype(np.float64) @ b) + beta * c.astype(np.float64)
    out = c.copy()
    assert kernels.gemm(a, b, alpha=alpha, beta=beta, out=out) is out
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-4)
    wide = np.repeat(c, 2, axis=1)  # an out that cannot be written directly
    kernels.gemm(a, b, alpha=alpha, beta=beta, out=wide[:, ::2])
    assert wide[:, ::2].tobytes() == out.tobytes() and wide[:, 1::2].tobytes() == c.tobytes()


def test_beta_0_overwrites_nan(rng):
    for shape in [(7, 17, 40), (65, 40, 1100), (3, 4, 0)]:
        a, b, *_ = operands(rng, *shape)
        out = np.full((shape[0], shape[1]), np.nan, np.float32)
        assert np.isfinite(kernels.gemm(a, b, alpha=0.5, out=out)).all()


def test_out_that_overlaps_an_input(rng):
    a, b, *_ = operands(rng, 20, 20, 20)
    want = kernels.gemm(a, b)
    assert kernels.gemm(a, b, out=a) is a
    assert a.tobytes() == want.tobytes()


def test_a_bias_adds_to_what_its_shape_says(rng):
    for m, n in [(5, 5), (1, 1), (1, 5), (5, 1), (7, 20)]:
        a, b, *_ = operands(rng, m, n, 3)
        product = a.astype(np.float64) @ b
        for shape in {(n,), (1, n), (m, 1)}:
            bias = rng.standard_normal(shape).astype(np.float32)
            np.testing.assert_allclose(kernels.gemm(a, b, bias=bias), product + bias, rtol=1e-5, atol=1e-5)


def test_fused_activations_are_those_of_the_ops(rng):
    a, b, *_ = operands(rng, 33, 45, 600)
    bias, ops = rng.standard_normal(45).astype(np.float32), fastnn.functional
    y = kernels.gemm(a, b, bias=bias)
    for name in ("relu", "sigmoid", "tanh", "silu", "gelu"):
        assert kernels.gemm(a, b, bias=bias, activation=name).tobytes() == getattr(ops, name)(y).tobytes(), name
    assert kernels.gemm(a, b, bias=bias, activation="gelu_tanh").tobytes() == ops.gelu(y, "tanh").tobytes()


def test_groups_of_columns_and_blocks_of_k_change_no_bits(rng):
    """Around the sizes where A stays in L2, B is packed in groups beside it, or C is cut into chunks."""
    for m, n, k in [(64, 200, 1100), (90, 130, 513), (40, 700, 640), (130, 300, 520)]:
        for trans_b in (False, True):
            a, b, _, stored_b = operands(rng, m, n, k, trans_b=trans_b)
            y = kernels.gemm(a, stored_b, trans_b=trans_b)
            assert np.abs(y - a.astype(np.float64) @ b).max() <= limit(a, b), (m, n, k, trans_b)
            for rows in (slice(0, 1), slice(3, 30)):
                assert kernels.gemm(a[rows], stored_b, trans_b=trans_b).tobytes() == y[rows].tobytes()


def test_transposed_views_are_not_copied(rng):
    a, b, *_ = operands(rng, 300, 200, 100)
    want = kernels.gemm(a, b)
    a_view, b_view = np.ascontiguousarray(a.T).T, np.ascontiguousarray(b.T).T
    assert kernels.gemm(a_view, b_view).tobytes() == want.tobytes()
    assert kernels.gemm(a_view.T, b_view.T, trans_a=True, trans_b=True).tobytes() == want.tobytes()
    stack = np.stack([b.T] * 3)
    assert kernels.gemm_batch(a[None], stack.swapaxes(1, 2))[2].tobytes() == want.tobytes()


A, B = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: kernels.gemm(A, B.T), ValueError, ["gemm", "(3, 4)", "(5, 4)", "4 columns", "5 rows"]),
        (lambda: kernels.gemm(A, B, trans_a=True), ValueError, ["a.T (4, 3)", "3 columns", "4 rows"]),
        (lambda: kernels.gemm(A[0], B), ValueError, ["'a' must be a matrix", "(4,)"]),
        (lambda: kernels.gemm(A, B.astype(np.float64)), TypeError, ["float32", "float64", "astype"]),
        (lambda: kernels.gemm(A.astype(int), B.astype(int)), TypeError, ["int64", "astype"]),
        (lambda: kernels.gemm([[1.0]], B), TypeError, ["list", "asarray"]),
        (lambda: kernels.gemm(A, B, bias=np.ones(3, np.float32)), ValueError, ["bias", "(5,)", "(3, 1)", "(3,)"]),
        (lambda: kernels.gemm(A, B, bias=np.ones(5)), TypeError, ["bias", "float64"]),
        (lambda: kernels.gemm(A, B, activation="tanhh"), ValueError, ["activation", "tanhh"]),
        (lambda: kernels.gemm(A, B, beta=1.0), ValueError, ["beta", "out"]),
        (lambda: kernels.gemm(A, B, out=np.ones((5, 3), np.float32)), ValueError, ["out", "(3, 5)", "(5, 3)"]),
        (lambda: kernels.gemm_batch(A, B), ValueError, ["gemm_batch", "(3, 4)"]),
        (lambda: kernels.gemm_batch(A[None], A[None]), ValueError, ["(1, 3, 4)", "4 columns", "3 rows"]),
        (lambda: kernels.gemm_batch(np.stack([A] * 2), np.stack([B] * 3)), ValueError, ["2 and 3 matrices"]),
        (lambda: linear(A, B), ValueError, ["linear", "(3, 4)", "(4, 5)", "4 features against 5"]),
        (lambda: linear(A, B.T, np.ones(4, np.float32)), ValueError, ["bias", "(5,)", "(4,)"]),
        (lambda: linear([1.0], B), TypeError, ["linear", "list"]),
        (lambda: matmul(A, A), ValueError, ["matmul", "4 columns against 3 rows"]),
        (lambda: matmul(np.stack([A] * 2), np.stack([B] * 3)), ValueError, ["(2,)", "(3,)", "broadcast"]),
        (lambda: matmul(A, np.float32(2)), ValueError, ["matmul", "one dimension"]),
        (lambda: kernels.gemm(np.ones((2**40, 0), np.float32), np.ones((0, 2**40), np.float32)), MemoryError, []),
    ],
)
def test_errors_name_what_is_wrong(call, error, words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_at_operator_and_gradient_of_a_shared_weight():
    x = fastnn.tensor(np.ones((2, 3, 4)), requires_grad=True)
    w = fastnn.tensor(np.arange(20.0).reshape(4, 5), requires_grad=True)
    ((x @ w) * 1.0).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), np.full((4, 5), 6.0))
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to(w.detach().numpy().sum(1), (2, 3, 4)))


def test_no_rows_past_a_large_matrix():
    b = np.ones((1024, 1024), np.float32)
    assert kernels.gemm(np.zeros((0, 1024), np.float32), b).shape == (0, 1024)
    x = fastnn.tensor(np.zeros((0, 1024), np.float32), requires_grad=True)
    w = fastnn.tensor(b, requires_grad=True)
    linear(x, w).sum().backward()
    assert x.grad.shape == (0, 1024) and not w.grad.array.any()
