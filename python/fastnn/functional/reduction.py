"""Reductions of Tensors (sum, mean, max, min), in an order of summation fixed by the shape, with their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import prod
from typing import Any

import numpy as np

from ..autograd import Tensor, apply, register
from ..kernels._backend import Array, empty, namespace, zeros
from ..kernels._check import integer
from ..kernels.reduce import extreme
from .arithmetic import summed

__all__: list[str] = []


def axis(op: str, dim: int, ndim: int) -> int:
    """``dim`` as a non-negative axis. A 0-d array counts as having one."""
    size, i = max(ndim, 1), integer(op, "dim", dim)
    if not -size <= i < size:
        raise ValueError(f"{op}: dim {i} is out of range for {ndim} dimensions: use {-size}..{size - 1}")
    return i % size


def axes(op: str, dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """``dim`` as a tuple of distinct non-negative axes; None or () means all. A 0-d array counts as having one."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(ndim))
    given = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    found = [axis(op, d, ndim) for d in given]
    if len(set(found)) != len(found):
        raise ValueError(f"{op}: dim {given} names an axis twice")
    return tuple(found) if ndim else ()


def _over(x: Array, number: Any) -> Array:
    if not isinstance(x, np.ndarray):
        return namespace(x).divide(x, number)
    with np.errstate(invalid="ignore", divide="ignore") if number == 0 else nullcontext():
        return np.divide(x, number, out=empty(x.shape, x))


@register("sum")
def sum(x: Any, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Any:
    along = axes("sum", dim, x.ndim)

    def forward(x: Array) -> Any:
        shape = x.shape
        y = summed(x, along, keepdim)

        def vjp(dy: Array, need: Any) -> Any:
            return (np.broadcast_to(dy if keepdim else np.expand_dims(dy, along), shape),)

        return y, vjp

    return apply("sum", forward, x)


@register("mean")
def mean(x: Any, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Any:
    if x.dtype.kind != "f":
        raise TypeError(f"mean: needs a floating-point tensor, got {x.dtype}; use .float() first")
    along = axes("mean", dim, x.ndim)

    def forward(x: Array) -> Any:
        shape = x.shape
        number = x.dtype.type(prod([shape[i] for i in along]))
        y = _over(summed(x, along, keepdim), number)

        def vjp(dy: Array, need: Any) -> Any:
            return (np.broadcast_to(_over(dy if keepdim else np.expand_dims(dy, along), number), shape),)

        return y, vjp

    return apply("mean", forward, x)


def _extreme(op: str, choose: str, x: Any, dim: int | None, keepdim: bool) -> Any:
    """The element that ``choose`` (argmax, argmin) finds.

    As in PyTorch the gradient goes, along ``dim``, to the first of equals; of the whole array, to all in equal parts.
    """
    along = None if dim is None else axes(op, dim, x.ndim)
    if 0 in (x.shape if not along else (x.shape[along[0]],)):
        raise ValueError(f"{op}: no elements to choose from in shape {x.shape}")
    axis = along[0] if along else 0

    def forward(x: Array) -> Any:
        shape = x.shape
        kept = (1,) * (x.ndim if dim is None else min(1, x.ndim)) if keepdim else ()
        final = shape[:axis] + kept + shape[axis + 1 :] if along else kept
        found = extreme(x, axis if along else None, choose == "argmin") if along or dim is None else None
        if found is None:  # integers, 0-d, what is not contiguous, a GPU
            flat = x if along else x.reshape(-1)
            where = np.expand_dims(getattr(namespace(x), choose)(flat, axis=axis), axis)
            found = np.take_along_axis(flat, where, axis), where
        y = found[0].reshape(final)
        if dim is None:
            return y, lambda dy, need: (_spread(x, y, dy),)
        where = found[1].reshape(final)

        def vjp(dy: Array, need: Any) -> Any:
            dx = zeros(shape if along else (1,), dy)
            around = shape[:axis] + (1,) + shape[axis + 1 :] if along else (1,)
            namespace(dx).put_along_axis(dx, where.reshape(around), dy.reshape(around), axis)
            return (dx.reshape(shape),)

        return y, vjp, where

    return apply(op, forward, x)


def _spread(x: Array, y: Array, dy: Array) -> Array:
    """``dy``, of one element, in equal parts where ``x`` is ``y``, its extreme."""
    xp = namespace(x)
    nan = xp.bitwise_and(xp.not_equal(x, x), xp.not_equal(y, y))
    equal = xp.bitwise_or(xp.equal(x, y), nan).astype(dy.dtype)
    return xp.multiply(equal, xp.divide(dy.reshape(()), summed(equal)))


@register("max")
def max_(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return _extreme("max", "argmax", x, dim, keepdim)


@register("min")
def min_(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return _extreme("min", "argmin", x, dim, keepdim)
