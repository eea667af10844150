"""Activations: forward and gradient of each on one screen; the loops are in kernels/activation.py."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import T, Tensor, apply, register
from ..kernels._backend import Array

__all__ = ["relu"]


@register("relu")
def relu(input: T, inplace: bool = False) -> T:
    """Rectified linear unit, ``max(0, x)``, with the gradient 0 at 0. Any shape.

    ``inplace=True`` is accepted for PyTorch's sake and writes plain arrays in place; a Tensor's result is a new one.
    """

    def forward(x: Array) -> Any:
        y = kernels.relu(x, out=x if inplace and not isinstance(input, Tensor) else None)
        return y, lambda dy, need: (kernels.relu_backward(dy, y),)

    return apply("relu", forward, input)
