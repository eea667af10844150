"""Activations and their gradients on plain arrays: ``y = f(x)``, ``dx = f'(x) dy``; any shape, float32 or float64.

A gradient is computed from the result ``y`` where that is enough and exact (relu, sigmoid, tanh), else from ``x``.
Formulas: csrc/formulas.h. Ops with gradients recorded: functional/activation.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._backend import Array, attempt, backend, input_names
from ._check import choice, deliver, floats, output, usual

__all__ = [
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "hardtanh",
    "hardtanh_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
]


def _elementwise(op: str, out: Array | None, *arguments: Any, kernel: str | None = None) -> Array:
    """Run an elementwise kernel (named as the op, if not said): arrays of one shape, then numbers.

    ``out`` may be one of the arrays.
    """
    if out is None and type(arguments[0]) is np.ndarray:
        made = getattr(attempt, kernel or op)(*arguments)
        if made is not None:
            return made
    names = input_names(kernel or op)
    if out is None and (gpu := usual(arguments[: len(names)])) is not None:
        first = arguments[0]
        y = gpu.xp.empty(first.shape, first.dtype)
        getattr(gpu.kernels, kernel or op)(*arguments[: len(names)], y, *arguments[len(names) :])
        return y
    arrays, numbers = floats(op, **dict(zip(names, arguments))), arguments[len(names) :]
    first = arrays[0]
    for name, x in zip(names, arrays):
        if x.shape != first.shape:
            raise ValueError(f"{op}: '{names[0]}' is {first.shape} but '{name}' is {x.shape}: they must agree")
    y = output(op, out, first.shape, first, *(x for x in arrays if x is not out))
    getattr(backend(op, first), kernel or op)(*arrays, y, *numbers)
    return deliver(y, out)


def relu(x: Array, *, out: Array | None = None) -> Array:
    """``max(0, x)``; NaN stays NaN."""
    return _elementwise("relu", out, x)


def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """``dy`` where the output ``y`` of relu is positive, else 0."""
    return _elementwise("relu_backward", out, dy, y)


def leaky_relu(x: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """``x`` where positive, else ``negative_slope * x``."""
    return _elementwise("leaky_relu", out, x, negative_slope)


def leaky_relu_backward(dy: Array, x: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """``dy`` where ``x`` is positive, else ``negative_slope * dy``."""
    return _elementwise("leaky_relu_backward", out, dy, x, negative_slope)


def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0, *, out: Array | None = None) -> Array:
    """``x`` limited to [min_val, max_val]; relu6 is ``hardtanh(x, 0, 6)``."""
    return _elementwise("hardtanh", out, x, min_val, max_val)


def hardtanh_backward(
    dy: Array, x: Array, min_val: float = -1.0, max_val: float = 1.0, *, out: Array | None = None
) -> Array:
    """``dy`` where ``min_val < x < max_val``, else 0."""
    return _elementwise("hardtanh_backward", out, dy, x, min_val, max_val)


def elu(x: Array, alpha: float = 1.0, scale: float = 1.0, *, out: Array | None = None) -> Array:
    """``scale * x`` where positive, else ``scale * alpha * (exp(x) - 1)``; selu is elu with its two constants."""
    return _elementwise("elu", out, x, alpha, scale)


def elu_backward(dy: Array, x: Array, alpha: float = 1.0, scale: float = 1.0, *, out: Array | None = None) -> Array:
    """``scale * dy`` where ``x`` is positive, else ``scale * alpha * exp(x) * dy``."""
    return _elementwise("elu_backward", out, dy, x, alpha, scale)


def gelu(x: Array, approximate: str = "none", *, out: Array | None = None) -> Array:
    """``x * Phi(x)``, Phi the normal distribution function, exact or (``"tanh"``) by its tanh approximation."""
    choice("gelu", "approximate", approximate, ("none", "tanh"))
    return _elementwise("gelu", out, x, kernel="gelu_tanh" if approximate == "tanh" else "gelu")


def gelu_backward(dy: Array, x: Array, approximate: str = "none", *, out: Array | None = None) -> Array:
    """``dy * (Phi(x) + x * Phi'(x))``."""
    op = "gelu_backward"
    choice(op, "approximate", approximate, ("none", "tanh"))
    return _elementwise(op, out, dy, x, kernel="gelu_tanh_backward" if approximate == "tanh" else op)


def silu(x: Array, *, out: Array | None = None) -> Array:
    """``x * sigmoid(x)``."""
    return _elementwise("silu", out, x)


def silu_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """``dy * s * (1 + x * (1 - s))``, ``s = sigmoid(x)``."""
    return _elementwise("silu_backward", out, dy, x)


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None) -> Array:
    """``log(1 + exp(beta * x)) / beta``; ``x`` itself where ``beta * x > threshold``."""
    return _elementwise("softplus", out, x, beta, threshold)


def softplus_backward(
    dy: Array, x: Array, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None
) -> Array:
    """``dy * sigmoid(beta * x)``; ``dy`` itself where ``beta * x > threshold``."""
    return _elementwise("softplus_backward", out, dy, x, beta, threshold)


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """``1 / (1 + exp(-x))``."""
    return _elementwise("sigmoid", out, x)


def sigmoid_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """``dy * y * (1 - y)``, ``y`` the output of sigmoid."""
    return _elementwise("sigmoid_backward", out, dy, y)


def tanh(x: Array, *, out: Array | None = None) -> Array:
    """Hyperbolic tangent."""
    return _elementwise("tanh", out, x)


def tanh_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """``dy * (1 - y * y)``, ``y`` the output of tanh."""
    return _elementwise("tanh_backward", out, dy, y)
