"""Activations and softmax against PyTorch, argument for argument: names, order, defaults, values, gradients."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import fastnn
from fastnn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional

NAMES = ["relu", "leaky_relu", "hardtanh", "relu6", "elu", "selu", "gelu", "silu", "softplus", "sigmoid", "tanh"]
NAMES += ["softmax", "log_softmax", "dropout", "dropout2d"]

CASES = [
    *((name, {}) for name in NAMES[:11]),
    ("leaky_relu", {"negative_slope": 0.2}),
    ("leaky_relu", {"negative_slope": -0.2}),
    ("hardtanh", {"min_val": -0.3, "max_val": 0.4}),
    ("elu", {"alpha": 0.5}),
    ("gelu", {"approximate": "tanh"}),
    ("softplus", {"beta": 2.5, "threshold": 1.0}),
]


def parameters(function):
    """Names and defaults in order, from the signature or, for PyTorch's builtins, from the first line of the text."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        first = re.search(r"\((.*?)\)", function.__doc__.strip().splitlines()[0])[1]
        items = [item.strip().split("=") for item in first.split(",") if item.strip() != "*"]
        return [(i[0].strip(), i[1].strip().strip("'\"") if len(i) > 1 else None) for i in items]
    empty = inspect.Parameter.empty
    return [(p.name, None if p.default is empty else str(p.default)) for p in signature.parameters.values()]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_have_torch_s_names_order_and_defaults(name):
    assert parameters(getattr(F, name)) == parameters(getattr(TF, name))


def both(name, x, args=(), kwargs=None, dtype=np.float32):
    """Results and gradients of ours and PyTorch's."""
    kwargs = kwargs or {}
    x = np.asarray(x, dtype)
    dy = np.random.default_rng(7).standard_normal(x.shape).astype(dtype)
    ours = fastnn.from_numpy(x).requires_grad_()
    y = getattr(F, name)(ours, *args, **kwargs)
    y.backward(dy)
    theirs = torch.from_numpy(x.copy()).requires_grad_()
    want = getattr(TF, name)(theirs, *args, **kwargs)
    want.backward(torch.from_numpy(dy))
    return y.detach().numpy(), want.detach().numpy(), ours.grad.numpy(), theirs.grad.numpy()


def assert_same(name, x, args=(), kwargs=None, dtype=np.float32):
    y, want, dx, want_dx = both(name, x, args, kwargs, dtype)
    eps = 16 * np.finfo(dtype).eps
    assert y.dtype == want.dtype and y.shape == want.shape
    np.testing.assert_allclose(y, want, rtol=eps, atol=eps)
    np.testing.assert_allclose(dx, want_dx, rtol=eps, atol=8 * eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, kwargs", CASES)
def test_activation(name, kwargs, dtype, rng):
    x = rng.standard_normal((5, 6, 7)) * 4
    assert_same(name, x, kwargs=kwargs, dtype=dtype)
    assert_same(name, x[::2, :, ::-3], kwargs=kwargs, dtype=dtype)
    assert_same(name, x.transpose(2, 0, 1), kwargs=kwargs, dtype=dtype)
    assert_same(name, 0.7, kwargs=kwargs, dtype=dtype)
    assert_same(name, np.empty((0, 3)), kwargs=kwargs, dtype=dtype)
    assert_same(name, [0.0, -0.0, 1.0, -1.0, 6.0, 30.0, -30.0, 100.0, -80.0], kwargs=kwargs, dtype=dtype)


@pytest.mark.parametrize("name, kwargs", CASES)
def test_special_values(name, kwargs):
    x = np.array([np.inf, -np.inf, np.nan], np.float32)
    exact = torch.from_numpy(x).double()  # in float32, PyTorch's gelu(inf) is NaN on some instruction sets
    np.testing.assert_array_equal(getattr(F, name)(x, **kwargs), getattr(TF, name)(exact, **kwargs).float())


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hardtanh", "relu6", "elu", "selu", "silu"])
def test_inplace_writes_plain_arrays(name, rng):
    x = rng.standard_normal((4, 5)).astype(np.float32)
    want = getattr(F, name)(x)
    for change in (np.ascontiguousarray, lambda a: np.asfortranarray(a)):
        mine = change(x.copy())
        assert getattr(F, name)(mine, inplace=True) is mine
        np.testing.assert_array_equal(mine, want)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    "shape, dim",
    [((), 0), ((), -1), ((5,), 0), ((3, 4), 0), ((3, 4), 1), ((3, 4), -2), ((2, 3, 17), 1), ((2, 3, 4, 5), 2)]
    + [((0, 3), 1), ((3, 0), 1), ((3, 0), 0), ((1, 300), 1), ((300, 1), 0)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax(name, shape, dim, dtype, rng):
    x = np.asarray(rng.standard_normal(shape) * 5)
    assert_same(name, x, (dim,), dtype=dtype)
    assert_same(name, x + 1000, (dim,), dtype=dtype)
    if x.ndim > 1:
        assert_same(name, x.swapaxes(0, 1)[..., ::-1], (dim,), dtype=dtype)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_infinities(name):
    x = np.array([[np.inf, 1, 2], [-np.inf, 1, 2], [-np.inf] * 3, [np.nan, 1, 2], [np.inf, np.inf, 0]], np.float32)
    for a, dim in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        want = getattr(TF, name)(torch.from_numpy(a), dim)
        np.testing.assert_allclose(getattr(F, name)(a, dim), want, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 4), (2, 3, 4, 5)])
def test_softmax_without_dim_takes_torch_s_choice_and_warns(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    with pytest.warns(UserWarning):
        want = TF.softmax(torch.from_numpy(x))
    with pytest.warns(UserWarning, match="softmax: dim was left out"):
        np.testing.assert_allclose(F.softmax(x), want, rtol=1e-6)


def test_softmax_dtype_and_methods(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    t = torch.from_numpy(x)
    y = F.softmax(x, 1, dtype=np.float64)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, TF.softmax(t, 1, dtype=torch.float64), rtol=1e-14)
    ours = fastnn.from_numpy(x)
    for name, args in [("softmax", (1,)), ("log_softmax", (0,)), ("tanh", ()), ("sigmoid", ()), ("relu", ())]:
        np.testing.assert_allclose(getattr(ours, name)(*args).numpy(), getattr(t, name)(*args), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda x: F.softmax(x, 2), "dim 2 is out of range"),
        (lambda x: F.log_softmax(x, -3), "dim -3 is out of range"),
        (lambda x: F.gelu(x, "exact"), "'approximate' must be 'none' or 'tanh'"),
        (lambda x: F.hardtanh(x, 1, -1), "min_val 1 is greater"),
    ],
)
def test_bad_arguments(call, error):
    with pytest.raises(ValueError, match=error):
        call(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("x", [np.zeros(3, np.int64), np.zeros(3, np.float16), [1.0], None, 1.0])
@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
def test_what_is_no_float_array_is_named(name, x):
    with pytest.raises(TypeError, match=f"{name}: 'x' must be"):
        getattr(F, name)(x)
