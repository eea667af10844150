"""Activations: forward and gradient of each on one screen; the loops are in kernels/activation.py.

``inplace=True`` writes the result into the input, array or Tensor, and returns it.
Softmax is in softmax.py.
"""

from __future__ import annotations

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


def _activation(op: str, forward: Any, input: T, inplace: bool = False) -> T:
    """Run ``forward(x, out=None) -> (y, vjp)``."""
    if not inplace:
        return apply(op, forward, input)
    if isinstance(input, Tensor):
        return input.change(op, lambda x: apply(op, forward, x))
    return apply(op, lambda x: forward(x, x), input)


def _relu(x: Array, out: Array | None = None) -> Any:
    y = kernels.relu(x, out=out)
    return y, lambda dy, need: (kernels.relu_backward(dy, y),)


@register("relu")
def relu(input: T, inplace: bool = False) -> T:
    """Rectified linear unit, ``max(0, x)``, with the gradient 0 at 0. Any shape."""
    return _activation("relu", _relu, input, True) if inplace else apply("relu", _relu, input)


def leaky_relu(input: T, negative_slope: float = 0.01, inplace: bool = False) -> T:
    """``x`` where positive, else ``negative_slope * x`` (Maas et al. 2013). Any shape."""

    def forward(x: Array, out: Array | None = None) -> Any:
        y = kernels.leaky_relu(x, negative_slope, out=out)
        return y, lambda dy, need: (kernels.leaky_relu_backward(dy, x, negative_slope),)

    return _activation("leaky_relu", forward, input, inplace)


def hardtanh(input: T, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> T:
    """``x`` limited to [min_val, max_val]; the gradient is 0 at the limits and beyond. Any shape."""
    if real("hardtanh", "min_val", min_val) > real("hardtanh", "max_val", max_val):
        raise ValueError(f"hardtanh: min_val {min_val} is greater than max_val {max_val}")

    def forward(x: Array, out: Array | None = None) -> Any:
        y = kernels.hardtanh(x, min_val, max_val, out=out)
        return y, lambda dy, need: (kernels.hardtanh_backward(dy, x, min_val, max_val),)

    return _activation("hardtanh", forward, input, inplace)


def relu6(input: T, inplace: bool = False) -> T:
    """``min(max(0, x), 6)``. Any shape."""
    return hardtanh(input, 0.0, 6.0, inplace)


def _elu(op: str, input: T, alpha: float, scale: float, inplace: bool) -> T:
    def forward(x: Array, out: Array | None = None) -> Any:
        y = kernels.elu(x, alpha, scale, out=out)
        return y, lambda dy, need: (kernels.elu_backward(dy, x, alpha, scale),)

    return _activation(op, forward, input, inplace)


def elu(input: T, alpha: float = 1.0, inplace: bool = False) -> T:
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016). Any shape."""
    return _elu("elu", input, alpha, 1.0, inplace)


def selu(input: T, inplace: bool = False) -> T:
    """``scale * elu(x, alpha)`` with the constants that keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    return _elu("selu", input, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, inplace)


def gelu(input: T, approximate: str = "none") -> T:
    """``x * Phi(x)``, Phi the normal distribution function (Hendrycks, Gimpel 2016). Any shape.

    ``approximate="tanh"`` takes ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`` instead.
    """

    def forward(x: Array) -> Any:
        y = kernels.gelu(x, approximate)
        return y, lambda dy, need: (kernels.gelu_backward(dy, x, approximate),)

    return _activation("gelu", forward, input)


def silu(input: T, inplace: bool = False) -> T:
    """``x * sigmoid(x)``, also named swish. Any shape."""

    def forward(x: Array, out: Array | None = None) -> Any:
        y = kernels.silu(x, out=out)
        return y, lambda dy, need: (kernels.silu_backward(dy, x),)

    return _activation("silu", forward, input, inplace)


def softplus(input: T, beta: float = 1, threshold: float = 20) -> T:
    """``log(1 + exp(beta * x)) / beta``, a smooth relu; ``x`` itself where ``beta * x > threshold``. Any shape."""

    def forward(x: Array) -> Any:
        y = kernels.softplus(x, beta, threshold)
        return y, lambda dy, need: (kernels.softplus_backward(dy, x, beta, threshold),)

    return _activation("softplus", forward, input)


@register("sigmoid")
def sigmoid(input: T) -> T:
    """``1 / (1 + exp(-x))``. Any shape."""

    def forward(x: Array) -> Any:
        y = kernels.sigmoid(x)
        return y, lambda dy, need: (kernels.sigmoid_backward(dy, y),)

    return _activation("sigmoid", forward, input)


@register("tanh")
def tanh(input: T) -> T:
    """Hyperbolic tangent. Any shape."""

    def forward(x: Array) -> Any:
        y = kernels.tanh(x)
        return y, lambda dy, need: (kernels.tanh_backward(dy, y),)

    return _activation("tanh", forward, input)
