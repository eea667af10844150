"""Filling parameters: PyTorch's formulas, with random numbers from fastnn's own counter-based generator.

Every call draws one stream, so that a network built after ``fastnn.manual_seed(n)`` has the same bits everywhere.
All functions write in place, whether or not the tensor requires a gradient, and return it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, prod, sqrt
from typing import Any, TypeVar

import numpy as np

from .. import kernels
from ..autograd import Tensor, no_grad
from ..kernels._backend import Array
from ..random import next_stream

__all__ = [
    "calculate_gain",
    "constant_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

T = TypeVar("T", bound=Tensor)


def _fill(tensor: T, values: Any) -> T:
    with no_grad():
        tensor.copy_(values)
    return tensor


def _draw(tensor: T, make: Callable[..., Array], *numbers: float) -> T:
    seed, stream = next_stream()
    return _fill(
        tensor, make(tensor.shape, *numbers, seed=seed, stream=stream, dtype=tensor.dtype, device=tensor.device)
    )


def _no_generator(op: str, generator: object) -> None:
    """PyTorch's argument ``generator`` may be passed as None."""
    if generator is not None:
        raise ValueError(f"{op}: generator must be None: all random numbers come from fastnn.manual_seed's generator")


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: None = None) -> T:
    """Uniform in [a, b)."""
    _no_generator("uniform_", generator)
    return _draw(tensor, kernels.uniform, a, b)


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0, generator: None = None) -> T:
    """Normal with ``mean`` and standard deviation ``std``."""
    _no_generator("normal_", generator)
    return _draw(tensor, kernels.normal, mean, std)


def trunc_normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: None = None
) -> T:
    """Normal with ``mean`` and ``std``, cut to [a, b] (which are absolute values, not multiples of ``std``)."""
    _no_generator("trunc_normal_", generator)
    if std <= 0 or not a < b:
        raise ValueError(f"trunc_normal_: needs std > 0 and a < b, got std={std}, a={a}, b={b}")
    seed, stream = next_stream()
    low, high = (erf((x - mean) / (std * sqrt(2))) for x in (a, b))
    values = mean + std * sqrt(2) * _erfinv(
        kernels.uniform(tensor.shape, low, high, seed=seed, stream=stream, dtype=np.float64)
    )
    return _fill(tensor, np.clip(values, a, b))


def _erfinv(x: Array) -> Array:
    """The inverse of erf, to single precision. Source: Giles, "Approximating the erfinv function" (2010)."""
    near = [2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087]
    near += [-0.00125372503, -0.00417768164, 0.246640727, 1.50140941]
    far = [-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773]
    far += [-0.0076224613, 0.00943887047, 1.00167406, 2.83297682]
    inside = np.clip(x, -1 + 2.0**-53, 1 - 2.0**-53)
    w = -np.log((1 - inside) * (1 + inside))
    return inside * np.where(w < 5, np.polyval(near, w - 2.5), np.polyval(far, np.sqrt(w) - 3))


def constant_(tensor: T, val: float) -> T:
    return _fill(tensor, val)


def zeros_(tensor: T) -> T:
    return _fill(tensor, 0)


def ones_(tensor: T) -> T:
    return _fill(tensor, 1)


def eye_(tensor: T) -> T:
    """The identity matrix; the tensor must have 2 dimensions."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_: needs a tensor of 2 dimensions, got shape {tensor.shape}")
    return _fill(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def fans(op: str, tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs reach one output, and outputs one input, of a (out, in, ...) weight."""
    if tensor.ndim < 2:
        raise ValueError(f"{op}: needs a weight of at least 2 dimensions (out, in, ...), got shape {tensor.shape}")
    area = prod(tensor.shape[2:])
    return tensor.shape[1] * area, tensor.shape[0] * area


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much weights must be larger to keep the variance through an activation; ``param``: leaky_relu's slope."""
    if nonlinearity in ("linear", "conv1d", "conv2d", "conv3d", "sigmoid"):
        return 1.0
    if nonlinearity == "tanh":
        return 5 / 3
    if nonlinearity == "relu":
        return sqrt(2)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return sqrt(2 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3 / 4
    known = "linear, conv2d, sigmoid, tanh, relu, leaky_relu, selu"
    raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; use one of {known}")


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: None = None) -> T:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)). Source: Glorot, Bengio (2010)."""
    _no_generator("xavier_uniform_", generator)
    bound = gain * sqrt(6 / _positive("xavier_uniform_", sum(fans("xavier_uniform_", tensor)), tensor))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0, generator: None = None) -> T:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)). Source: Glorot, Bengio (2010)."""
    _no_generator("xavier_normal_", generator)
    return normal_(tensor, 0, gain * sqrt(2 / _positive("xavier_normal_", sum(fans("xavier_normal_", tensor)), tensor)))


def _kaiming_std(op: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{op}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = _positive(op, fans(op, tensor)[mode == "fan_out"], tensor)
    return calculate_gain(nonlinearity, a) / sqrt(fan)


def _positive(op: str, fan: int, tensor: Tensor) -> int:
    if fan == 0:
        raise ValueError(f"{op}: a weight of shape {tensor.shape} has no inputs to scale by")
    return fan


def kaiming_uniform_(
    tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: None = None
) -> T:
    """Uniform in +-gain * sqrt(3 / fan). Source: He, Zhang, Ren, Sun (2015)."""
    _no_generator("kaiming_uniform_", generator)
    bound = sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: None = None
) -> T:
    """Normal with standard deviation gain / sqrt(fan). Source: He, Zhang, Ren, Sun (2015)."""
    _no_generator("kaiming_normal_", generator)
    return normal_(tensor, 0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity))
