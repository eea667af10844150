"""Softmax and log-softmax: forward and gradient of each on one screen; the loops are in csrc/cpu/softmax.cpp."""

from __future__ import annotations

import warnings
from typing import Any

from .. import kernels
from ..autograd import T, apply, register
from ..kernels._backend import Array
from ..kernels._check import expect_arrays, float_dtype
from .arithmetic import cast

__all__ = ["log_softmax", "softmax"]


def _dim(op: str, input: Any, dim: int | None, stacklevel: int) -> int:
    """PyTorch's choice where ``dim`` is left out, with its warning: 0 for 0, 1 and 3 dimensions, else 1."""
    expect_arrays(op, input=input)
    if dim is not None:
        return dim
    chosen = 0 if input.ndim in (0, 1, 3) else 1
    warnings.warn(f"{op}: dim was left out, taken as {chosen}; pass dim=", UserWarning, stacklevel=stacklevel)
    return chosen


@register("softmax")
def softmax(input: T, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> T:
    """``exp(x) / sum(exp(x))`` along ``dim``: positive numbers that sum to 1. Any shape.

    ``dtype`` converts the input first. Without ``dim`` PyTorch's old choice is taken, with a warning.
    """
    along = _dim("softmax", input, dim, _stacklevel)

    def forward(x: Array) -> Any:
        y = kernels.softmax(x, along)
        return y, lambda dy, need: (kernels.softmax_backward(dy, y, along),)

    return apply("softmax", forward, input if dtype is None else cast(input, float_dtype("softmax", dtype)))


@register("log_softmax")
def log_softmax(input: T, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> T:
    """``x - log(sum(exp(x)))`` along ``dim``, without the overflow that log(softmax(x)) would have. Any shape.

    ``dtype`` converts the input first. Without ``dim`` PyTorch's old choice is taken, with a warning.
    """
    along = _dim("log_softmax", input, dim, _stacklevel)

    def forward(x: Array) -> Any:
        y = kernels.log_softmax(x, along)
        return y, lambda dy, need: (kernels.log_softmax_backward(dy, y, along),)

    return apply("log_softmax", forward, input if dtype is None else cast(input, float_dtype("log_softmax", dtype)))
