"""Activations: forward and gradient of each on one screen; the loops are in kernels/activation.py.

``inplace=True`` writes the result into the input, array or Tensor, and returns it.
Softmax is in softmax.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import kernels
from ..autograd import T, Tensor, apply, register
from ..kernels._backend import Array
from ..kernels._check import real

__all__ = [
    "elu",
    "gelu",
    "hardtanh",
    "leaky_relu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]


def _activation(
    op: str,
    input: T,
    inplace: bool,
    compute: Callable[[Array, Array | None], Array],
    gradient: Callable[[Array, Array], Array],
    keep_result: bool = False,
) -> T:
    """``y = compute(x, out)``; ``dx = gradient(dy, x)``, or ``gradient(dy, y)`` where the result is what it needs."""
    if inplace and isinstance(input, Tensor):
        return input.change(op, lambda x: _activation(op, x, False, compute, gradient, keep_result))

    def forward(x: Array) -> Any:
        y = compute(x, x if inplace else None)
        kept = y if keep_result else x
        return y, lambda dy, need: (gradient(dy, kept),)

    return apply(op, forward, input)


@register("relu")
def relu(input: T, inplace: bool = False) -> T:
    """Rectified linear unit, ``max(0, x)``, with the gradient 0 at 0. Any shape."""
    return _activation(
        "relu",
        input,
        inplace,
        lambda x, out: kernels.relu(x, out=out),
        kernels.relu_backward,
        keep_result=True,
    )


def leaky_relu(input: T, negative_slope: float = 0.01, inplace: bool = False) -> T:
    """``x`` where positive, else ``negative_slope * x`` (Maas et al. 2013). Any shape."""
    return _activation(
        "leaky_relu",
        input,
        inplace,
        lambda x, out: kernels.leaky_relu(x, negative_slope, out=out),
        lambda dy, x: kernels.leaky_relu_backward(dy, x, negative_slope),
    )


def hardtanh(input: T, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> T:
    """``x`` limited to [min_val, max_val]; the gradient is 0 at the limits and beyond. Any shape."""
    if real("hardtanh", "min_val", min_val) > real("hardtanh", "max_val", max_val):
        raise ValueError(f"hardtanh: min_val {min_val} is greater than max_val {max_val}")
    return _activation(
        "hardtanh",
        input,
        inplace,
        lambda x, out: kernels.hardtanh(x, min_val, max_val, out=out),
        lambda dy, x: kernels.hardtanh_backward(dy, x, min_val, max_val),
    )


def relu6(input: T, inplace: bool = False) -> T:
    """``min(max(0, x), 6)``. Any shape."""
    return hardtanh(input, 0.0, 6.0, inplace)


def elu(input: T, alpha: float = 1.0, inplace: bool = False) -> T:
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016). Any shape."""
    return _activation(
        "elu",
        input,
        inplace,
        lambda x, out: kernels.elu(x, alpha, out=out),
        lambda dy, x: kernels.elu_backward(dy, x, alpha),
    )


def selu(input: T, inplace: bool = False) -> T:
    """``scale * elu(x, alpha)`` with the constants that keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return _activation(
        "selu",
        input,
        inplace,
        lambda x, out: kernels.elu(x, alpha, scale, out=out),
        lambda dy, x: kernels.elu_backward(dy, x, alpha, scale),
    )


def gelu(input: T, approximate: str = "none") -> T:
    """``x * Phi(x)``, Phi the normal distribution function (Hendrycks, Gimpel 2016). Any shape.

    ``approximate="tanh"`` takes ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`` instead.
    """
    return _activation(
        "gelu",
        input,
        False,
        lambda x, out: kernels.gelu(x, approximate, out=out),
        lambda dy, x: kernels.gelu_backward(dy, x, approximate),
    )


def silu(input: T, inplace: bool = False) -> T:
    """``x * sigmoid(x)``, also named swish. Any shape."""
    return _activation("silu", input, inplace, lambda x, out: kernels.silu(x, out=out), kernels.silu_backward)


def softplus(input: T, beta: float = 1, threshold: float = 20) -> T:
    """``log(1 + exp(beta * x)) / beta``, a smooth relu; ``x`` itself where ``beta * x > threshold``. Any shape."""
    return _activation(
        "softplus",
        input,
        False,
        lambda x, out: kernels.softplus(x, beta, threshold, out=out),
        lambda dy, x: kernels.softplus_backward(dy, x, beta, threshold),
    )


@register("sigmoid")
def sigmoid(input: T) -> T:
    """``1 / (1 + exp(-x))``. Any shape."""
    return _activation(
        "sigmoid",
        input,
        False,
        lambda x, out: kernels.sigmoid(x, out=out),
        kernels.sigmoid_backward,
        keep_result=True,
    )


@register("tanh")
def tanh(input: T) -> T:
    """Hyperbolic tangent. Any shape."""
    return _activation(
        "tanh",
        input,
        False,
        lambda x, out: kernels.tanh(x, out=out),
        kernels.tanh_backward,
        keep_result=True,
    )
