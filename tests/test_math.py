"""The vector functions behind the activations, against float64 over the whole range of float32."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastnn import kernels

TINY = np.finfo(np.float32).tiny


@pytest.fixture(scope="module")
def points():
    """Every exponent and sign at random mantissas, denormals, the usual range densely, and what is special."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = [rng.standard_normal(50_000) * scale for scale in (0.1, 1, 5, 30)]
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, TINY, 88.72, 88.73, -87.3, -87.4, -103, -104, 1, -1]
    return np.concatenate([bits[~np.isnan(bits)], *dense, special]).astype(np.float32)


def seen(x):
    """As the kernels see it: float64, with denormals flushed to zero."""
    x = x.astype(np.float64)
    return np.where(np.abs(x) < TINY, 0.0, x)


FUNCTIONS = {  # name: ours, exact, units in the last place allowed
    "tanh": (kernels.tanh, np.tanh, 2.5),
    "expm1": (kernels.elu, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), 1.5),
    "exp": (kernels.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 3),
    "log1p": (kernels.softplus, lambda x: np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20)))), 3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_units_in_the_last_place(name, points):
    ours, exact, units = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        y, want = ours(points), exact(seen(points))
        rounded = want.astype(np.float32)
    normal = np.isfinite(rounded) & (np.abs(want) > TINY)
    error = np.abs(y[normal] - want[normal]) / np.spacing(np.abs(rounded[normal]))
    assert error.max() <= units, f"{error.max()} at {points[normal][error.argmax()]}"
    np.testing.assert_array_equal(np.isnan(y), np.isnan(want))
    np.testing.assert_array_equal(y[np.isinf(want)], want[np.isinf(want)])
    assert np.abs(y[np.abs(want) <= TINY]).max(initial=0) <= 1.001 * TINY


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate, points):
    points = points[np.abs(points) < 1e12]  # beyond, x**3 of the approximation overflows, as PyTorch's does
    x = seen(points)
    if approximate == "none":
        want = 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
    else:
        want = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    error = np.abs(kernels.gelu(points, approximate) - want)
    assert (error <= 4 * np.finfo(np.float32).eps * np.abs(x) + TINY).all()


def test_odd_functions_are_odd_to_the_bit(points):
    np.testing.assert_array_equal(kernels.tanh(-points), -kernels.tanh(points))
    assert np.signbit(kernels.tanh(np.float32([-0.0, 0.0]))).tolist() == [True, False]


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "silu", "softplus", "elu"])
def test_double_is_libm_s(name, points):
    x = points[np.abs(points) < 700].astype(np.float64)
    with np.errstate(all="ignore"):
        want = {
            "tanh": np.tanh(x),
            "sigmoid": 1 / (1 + np.exp(-x)),
            "gelu": 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))),
            "silu": x / (1 + np.exp(-x)),
            "softplus": np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20)))),
            "elu": np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        }[name]
    np.testing.assert_allclose(getattr(kernels, name)(x), want, rtol=1e-14, atol=1e-15)
