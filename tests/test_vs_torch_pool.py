"""Pooling against PyTorch, argument for argument: values, indices, gradients, and which calls are errors."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import fastnn
from fastnn import functional as F

torch = pytest.importorskip("torch")

SHAPES = [(2, 3, 9, 11), (3, 5, 7), (1, 2, 34, 33), (0, 2, 9, 9), (2, 1, 1, 4)]


def compare(name, x, *args, **kwargs):
    """Both raise, or both give the same result and gradient. Returns whether there was a result."""
    theirs = torch.tensor(x, requires_grad=True)
    ours = fastnn.tensor(x, requires_grad=True)
    try:
        want = getattr(torch.nn.functional, name)(theirs, *args, **kwargs)
    except (RuntimeError, ValueError, TypeError, IndexError):
        with pytest.raises((ValueError, TypeError)):
            getattr(F, name)(ours, *args, **kwargs)
        return False
    what = f"{name} {x.shape} {args} {kwargs}"
    try:
        got = getattr(F, name)(ours, *args, **kwargs)
    except ValueError as error:
        # Ours alone: of no elements PyTorch makes -inf and an index outside the plane, or 0 / 0; other ranks.
        assert "without any of the input" in str(error) or 0 in x.shape[-2:] or x.ndim not in (3, 4), what
        return False
    if isinstance(want, tuple):
        np.testing.assert_array_equal(got[1].numpy(), want[1].numpy(), err_msg=what)
        got, want = got[0], want[0]
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=2e-6, atol=2e-6, err_msg=what)
    if 0 in got.shape[-3:]:  # PyTorch's backward refuses what its forward allowed
        return True
    dy = np.random.default_rng(0).standard_normal(got.shape).astype(x.dtype)
    want.backward(torch.tensor(dy))
    got.backward(dy)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-5, atol=1e-5, err_msg=what)
    return True


def draw(rng, shape, ties=True):
    x = rng.integers(-2, 3, shape) if ties else rng.standard_normal(shape)
    return x.astype(np.float32)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_max_pool2d(shape, ceil_mode, rng):
    results = 0
    for kernel, stride, padding, dilation in product([1, 2, 3, (2, 4)], [None, 1, 2, 5, (3, 1)], [0, 1, 2], [1, 2, 3]):
        for return_indices in (False, True):
            arguments = (kernel, stride, padding, dilation, ceil_mode, return_indices)
            results += compare("max_pool2d", draw(rng, shape), *arguments)
    assert results > 50


def test_max_pool2d_of_special_values(rng):
    values = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1], np.float32)
    for dtype, kernel, stride, padding in product([np.float32, np.float64], [2, 3, 18], [1, 2, 3], [0, 1]):
        x = rng.choice(values, (2, 2, 37, 41), p=[0.05, 0.05, 0.7, 0.05, 0.05, 0.1]).astype(dtype)
        assert compare("max_pool2d", x, kernel, stride, padding, return_indices=True)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_avg_pool2d(shape, ceil_mode, rng):
    results = 0
    for kernel, stride, padding in product([1, 2, 3, (2, 4)], [None, 1, 2, 5, (3, 1)], [0, 1, (1, 2)]):
        for count_include_pad, divisor in product([True, False], [None, 0, 3, -2]):
            arguments = (kernel, stride, padding, ceil_mode, count_include_pad, divisor)
            results += compare("avg_pool2d", draw(rng, shape, ties=False), *arguments)
    assert results > 50


@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_adaptive(name, rng):
    sizes = [1, 2, 3, 7, (None, 2), (4, None), (2, 2), (3,), 40, 0, -1, (1, 2, 3)]
    for shape, size in product([*SHAPES, (2, 0, 5, 5), (2, 2, 0, 5), (5, 5), (1, 1, 1, 5, 5)], sizes):
        compare(name, draw(rng, shape, ties=name == "adaptive_max_pool2d"), size)
        if name == "adaptive_max_pool2d":
            compare(name, draw(rng, shape), size, return_indices=True)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    "args",
    [(0,), (-1,), (9,), ((2, 3, 4),), (2, 0), (2, -1), (2, 1, 2), (2, 1, -1), (3, (1, 2), (1, 1)), (2.5,), ((2,), [3])],
)
def test_errors(name, args, rng):
    for shape in [(2, 3, 5, 5), (3, 5, 5), (2, 0, 5, 5), (2, 2, 0, 5), (2, 2, 5, 0), (5, 5), (5,), (1, 1, 1, 5, 5)]:
        compare(name, draw(rng, shape), *args)
