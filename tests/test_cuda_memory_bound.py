"""Kernels that memory bounds, on a GPU against the CPU: softmax and losses of long rows and many, labels out of range,
optimizer steps over lists of arrays, random numbers. The records (test_ops.py) have their ordinary shapes."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import functional, kernels
from fastnn.kernels import optim

FLOATS = [np.float32, np.float64]


def close(got, want, units=16):
    scale = max(1.0, float(np.nanmax(np.abs(want), initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=units * np.finfo(want.dtype).eps * scale)


# Each row of the table of teams, and shapes that the records leave out.
SHAPES = [((3, 600), 1), ((2, 4096), 1), ((2, 4097), 1), ((600, 3), 0), ((2, 300, 33), 1), ((70, 64), 1), ((70, 65), 1)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape, dim", SHAPES)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax(gpu, op, shape, dim, dtype, rng):
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    forward, backward = getattr(kernels, op), getattr(kernels, f"{op}_backward")
    y = forward(x, dim)
    close(gpu.get(forward(gpu.put(x), dim)), y)
    close(gpu.get(backward(gpu.put(dy), gpu.put(y), dim)), backward(dy, y, dim), 64)


def test_a_row_of_minus_infinity_or_with_infinity_is_nan(gpu):
    x = np.array([[-np.inf, -np.inf], [1, np.inf], [1, -np.inf]], np.float32)
    got = gpu.get(kernels.softmax(gpu.put(x), 1))
    assert np.isnan(got[:2]).all() and got[2].tolist() == [1, 0]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(300, 5), (257, 64), (9000, 3), (3, 4500), (20, 7, 500), (5, 1, 1)])
def test_losses_of_many_rows(gpu, shape, reduction, rng):
    x, weight = rng.standard_normal(shape), rng.uniform(0.5, 2, shape[1])
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    soft = np.abs(rng.standard_normal(shape))
    labels.reshape(-1)[::5] = -100
    for target in (labels, soft):
        y, stats, divisor = kernels.cross_entropy(x, target, weight, -100, reduction, 0.1)
        dx = kernels.cross_entropy_backward(y, x, target, weight, stats, divisor, -100, 0.1)
        there = [gpu.put(a) for a in (x, target, weight)]
        y_there, *kept = kernels.cross_entropy(*there, -100, reduction, 0.1)
        dx_there = kernels.cross_entropy_backward(gpu.put(y), *there, *kept, -100, 0.1)
        for got, want in ((y_there, y), (dx_there, dx), (kept[1], divisor)):
            close(gpu.get(got), np.asarray(want), 1024)
    y, divisor = kernels.nll_loss(x, labels, weight, -100, reduction)
    y_there, kept = kernels.nll_loss(gpu.put(x), gpu.put(labels), gpu.put(weight), -100, reduction)
    close(gpu.get(y_there), y, 1024)
    dx = kernels.nll_loss_backward(y, shape, labels, weight, divisor)
    close(gpu.get(kernels.nll_loss_backward(gpu.put(y), shape, gpu.put(labels), gpu.put(weight), kept)), dx)


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_label_out_of_range_gives_nan_and_reads_nothing(gpu, label, rng):
    x, labels, weight = rng.standard_normal((4, 3)), np.array([0, label, 2, 1]), np.ones(3)
    there = [gpu.put(a) for a in (x, labels, weight)]
    y, stats, divisor = kernels.cross_entropy(*there)
    assert np.isnan(gpu.get(y))
    dx = gpu.get(kernels.cross_entropy_backward(gpu.put(np.ones(())), *there, stats, divisor))
    assert np.isnan(dx).all()  # through the divisor
    y, stats, divisor = kernels.cross_entropy(*there, reduction="none")
    dx = gpu.get(kernels.cross_entropy_backward(gpu.put(np.ones(4)), *there, stats, divisor))
    assert np.isnan(gpu.get(y)).tolist() == np.isnan(dx).all(1).tolist() == [False, True, False, False]
    y, divisor = kernels.nll_loss(*there, reduction="none")
    dx = gpu.get(kernels.nll_loss_backward(gpu.put(np.ones(4)), x.shape, *there[1:], divisor))
    assert np.isnan(gpu.get(y)).tolist() == np.isnan(dx).all(1).tolist() == [False, True, False, False]


def test_probabilities_out_of_range_give_nan(gpu):
    x, t = gpu.put(np.array([0.5, -0.1, 1.1, 0.0, 1.0])), gpu.put(np.array([1.0, 0.0, 1.0, 0.0, 1.0]))
    got = gpu.get(functional.binary_cross_entropy(x, t, reduction="none"))
    assert np.isnan(got).tolist() == [False, True, True, False, False] and got[3:].tolist() == [0, 0]


SIZES = [(3,), (0,), (64, 65), (4096,), (8193,), (1,), ()]


def arrays(rng, dtype, change=lambda x: x):
    """A list of arrays of those sizes, the last a view that is not aligned to 16 bytes."""
    made = [change(rng.standard_normal(shape).astype(dtype)) for shape in SIZES]
    return [*made, change(np.abs(rng.standard_normal(4100)).astype(dtype))[1:]]


def there_and_here(gpu, dtype, kinds, seed=0):
    """``kinds`` lists of arrays on the CPU, and the same on the GPU."""
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    return [arrays(rng, dtype) for _ in range(kinds)], [arrays(other, dtype, gpu.put) for _ in range(kinds)]


STEPS = {
    "sgd": ("sgd_step", 2, {"lr": 0.1}),
    "sgd decay": ("sgd_step", 2, {"lr": 0.1, "weight_decay": 0.3, "maximize": True}),
    "momentum first": ("sgd_step", 3, {"lr": 0.1, "momentum": 0.9, "first": True}),
    "momentum": ("sgd_step", 3, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}),
    "nesterov": ("sgd_step", 3, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": ("adam_step", 4, {"lr": 0.1, "step": 3, "weight_decay": 0.1}),
    "adamw": ("adam_step", 4, {"lr": 0.1, "step": 1, "weight_decay": 0.1, "decoupled": True, "maximize": True}),
    "amsgrad": ("adam_step", 5, {"lr": 0.1, "step": 2, "beta1": 0.7, "beta2": 0.8, "eps": 1e-3}),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", STEPS)
def test_steps_over_lists_of_arrays(gpu, name, dtype):
    op, kinds, options = STEPS[name]
    here, there = there_and_here(gpu, dtype, kinds)
    for column in (3, 4):  # running means of squares
        for lists in (here, there):
            if column < kinds and op == "adam_step":
                for x in lists[column]:
                    x *= x
    for _ in range(2):  # the second time from the table that was kept
        getattr(optim, op)(*here, **options)
        getattr(optim, op)(*there, **options)
    for column, other in zip(here, there):
        for a, b in zip(column, other):
            close(gpu.get(b), np.asarray(a), 32)


def test_one_launch_steps_all_parameters(gpu):
    _, there = there_and_here(gpu, np.float32, 2)
    if not gpu.emulated:
        pytest.skip("only the emulator counts launches")
    for _ in range(2):
        before = gpu.gpu.launches
        optim.sgd_step(*there, lr=0.1)
        assert gpu.gpu.launches == before + 1


def test_an_array_given_twice_is_updated_twice(gpu):
    w, dw = gpu.put(np.ones(9)), gpu.put(np.ones(9))
    for times in (2, 4):
        optim.sgd_step([w, w], [dw, dw], lr=0.125)
        assert gpu.get(w).tolist() == [1 - times / 8] * 9


def test_what_was_checked_once_is_checked_again_where_it_differs(gpu):
    w, dw = gpu.put(np.ones(8)), gpu.put(np.ones(8))
    optim.sgd_step([w], [dw], lr=0.5)
    with pytest.raises(ValueError, match="must agree"):
        optim.sgd_step([w], [dw.reshape(2, 4)], lr=0.5)
    optim.sgd_step([w[::2]], [dw[:4]], lr=0.5)
    assert gpu.get(w).tolist() == [0, 0.5] * 4


@pytest.mark.parametrize("p", [2.0, np.inf, 3.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_norm_and_scale(gpu, dtype, p):
    (here,), (there,) = there_and_here(gpu, dtype, 1)
    np.testing.assert_allclose(optim.total_norm(there, p), optim.total_norm(here, p), rtol=4 * np.finfo(dtype).eps)
    assert optim.total_norm(there[1:2], p) == 0
    optim.scale(here, 0.3)
    optim.scale(there, 0.3)
    for a, b in zip(here, there):
        np.testing.assert_array_equal(gpu.get(b), a)
    there[2][0] = np.nan
    assert np.isnan(optim.total_norm(there, p))


@pytest.mark.parametrize("n", [0, 1, 3, 4, 1025])
@pytest.mark.parametrize("seed, stream", [(0, 0), (2**64 - 1, 2**63 + 5)])
def test_random_numbers_are_the_cpu_s(gpu, n, seed, stream):
    key = {"seed": seed, "stream": stream}
    bits = gpu.get(kernels.random_bits(n, seed, stream, device="cuda"))
    np.testing.assert_array_equal(bits, kernels.random_bits(n, seed, stream))
    for dtype in FLOATS:
        for low, high in ((0, 1), (-3.7, 5.1), (1, np.nextafter(dtype(1), dtype(2)))):
            got = gpu.get(kernels.uniform((n,), low, high, **key, dtype=dtype, device="cuda"))
            np.testing.assert_array_equal(got, kernels.uniform((n,), low, high, **key, dtype=dtype))
        got = gpu.get(kernels.normal((n,), 2, 3, **key, dtype=dtype, device="cuda"))
        close(got, kernels.normal((n,), 2, 3, **key, dtype=dtype), 16)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n, group", [(0, 1), (1, 1), (1027, 1), (1026, 3), (1024, 64), (40, 40)])
def test_dropout_is_the_cpu_s(gpu, p, n, group, rng):
    for dtype in FLOATS:
        x = rng.standard_normal(n + 1).astype(dtype)
        for begin in (0, 1):  # aligned and not
            want = kernels.dropout(x[begin : begin + n], p, 7, 9, group)
            got = kernels.dropout(gpu.put(x)[begin : begin + n], p, 7, 9, group)
            np.testing.assert_array_equal(gpu.get(got), want)


def test_long_sums_are_cut_by_shape(gpu, rng):
    for shape, begin, end in [((2, 40000), 1, 2), ((1100, 33), 0, 1), ((2, 530, 3), 1, 2), ((40000,), 0, 1)]:
        x = rng.standard_normal(shape).astype(np.float32)
        want = x.astype(np.float64).sum(tuple(range(begin, end)))
        got = gpu.get(kernels.sum_middle(gpu.put(x), begin, end))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.abs(x).sum() / max(want.size, 1))


@pytest.mark.parametrize("order", [{"threads": "reverse", "blocks": "reverse"}, {"threads": "random", "seed": 1}])
def test_the_same_bits_in_every_order_of_threads(gpu, order, rng):
    x, labels = gpu.put(rng.standard_normal((300, 70)).astype(np.float32)), gpu.put(rng.integers(0, 70, 300))
    (gradients,) = there_and_here(gpu, np.float32, 1)[1]

    def results():
        y, stats, divisor = kernels.cross_entropy(x, labels, None, -100, "mean", 0.1)
        dx = kernels.cross_entropy_backward(y, x, labels, None, stats, divisor, -100, 0.1)
        made = [y, stats, dx, kernels.softmax(x, 0), kernels.sum_middle(x, 0, 2)]
        return [gpu.get(a).tobytes() for a in made], optim.total_norm(gradients)

    before = results()
    with gpu.schedule(**order):
        assert results() == before
