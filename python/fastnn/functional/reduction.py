"""Reductions of Tensors (sum, mean, max, min), in an order of summation fixed by the shape, with their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..autograd import Tensor, apply, register
from ..kernels._backend import Array, namespace, zeros
from ..kernels._check import integer
from .arithmetic import as_array, summed

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


def _sum(x: Array, along: tuple[int, ...], keepdim: bool) -> Array:
    """By our kernel where the dimensions are neighbours, on all threads; NumPy's otherwise, and of integers. On a GPU
    ours for all."""
    if not isinstance(x, np.ndarray):
        return summed(x, along, keepdim)
    dims = sorted(along)
    if x.dtype not in (np.float32, np.float64) or dims != list(range(dims[0], dims[0] + len(dims)) if dims else ()):
        return as_array(x.sum(axis=along, keepdims=keepdim, dtype=x.dtype if x.dtype.kind == "f" else np.int64))
    begin, end = (dims[0], dims[-1] + 1) if dims else (0, 0)
    y = kernels.sum_middle(x, begin, end)
    return y.reshape(x.shape[:begin] + (1,) * len(dims) + x.shape[end:]) if keepdim else y


def _over(x: Array, number: Any) -> Array:
    return as_array(x / number) if isinstance(x, np.ndarray) else namespace(x).divide(x, number)


@register("sum")
def sum(x: Any, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Any:
    along = axes("sum", dim, x.ndim)

    def forward(x: Array) -> Any:
        shape = x.shape
        y = _sum(x, along, keepdim)

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
        number = x.dtype.type(np.prod([shape[i] for i in along], dtype=np.int64))
        with np.errstate(invalid="ignore", divide="ignore"):
            y = _over(_sum(x, along, keepdim), number)

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
        flat = x if along else x.reshape(-1)
        xp = namespace(flat)
        where = np.expand_dims(getattr(xp, choose)(flat, axis=axis), axis)
        y = np.take_along_axis(flat, where, axis)

        def vjp(dy: Array, need: Any) -> Any:
            if dim is None:
                nan = xp.bitwise_and(xp.not_equal(flat, flat), xp.not_equal(y, y))
                equal = xp.bitwise_or(xp.equal(flat, y), nan).astype(dy.dtype)
                return (xp.multiply(equal, xp.divide(dy.reshape(1), summed(equal, None))).reshape(shape),)
            dx = zeros(flat.shape, dy)
            xp.put_along_axis(dx, where, dy.reshape(where.shape), axis)
            return (dx.reshape(shape),)

        final = y.shape if along and keepdim else (1,) * x.ndim if keepdim else np.delete(shape, along or range(x.ndim))
        final = tuple(int(n) for n in final)
        return (y.reshape(final), vjp) if dim is None else (y.reshape(final), vjp, where.reshape(final))

    return apply(op, forward, x)


@register("max")
def max_(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return _extreme("max", "argmax", x, dim, keepdim)


@register("min")
def min_(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return _extreme("min", "argmin", x, dim, keepdim)
