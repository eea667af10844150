"""Shaping and indexing of Tensors: views where NumPy gives views, and their gradients; cat and stack."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..autograd import Tensor, apply, register
from ..kernels._backend import Array, namespace, zeros
from ..kernels._check import expect_arrays, integer, plain, shown
from .arithmetic import as_array, cast, operands, shape_of, unbroadcast
from .reduction import axes, axis

__all__ = ["cat", "stack"]


def _sizes(op: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` alike."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return tuple(integer(op, "shape", n) for n in shape)


def _shaped(x: Any, sizes: tuple[int, ...]) -> Any:
    def forward(x: Array) -> Any:
        before = x.shape
        try:
            y = x.reshape(sizes)
        except ValueError:
            raise ValueError(f"reshape: {before} has {x.size} elements, which do not fill {sizes}") from None
        return y, lambda dy, need: (dy.reshape(before),)

    return apply("reshape", forward, x)


@register("reshape")
def reshape(x: Any, *shape: Any) -> Any:
    return _shaped(x, _sizes("reshape", shape))


@register("flatten")
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions ``start_dim`` to ``end_dim`` (both included) made one; a 0-d tensor becomes 1-d."""
    return _shaped(x, _flat(x.shape, integer("flatten", "dim", start_dim), integer("flatten", "dim", end_dim)))


@lru_cache(maxsize=512)
def _flat(shape: tuple[int, ...], start_dim: int, end_dim: int) -> tuple[int, ...]:
    start, end = axis("flatten", start_dim, len(shape)), axis("flatten", end_dim, len(shape))
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim} in shape {shape}")
    return (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])


@register("permute")
def permute(x: Any, *dims: Any) -> Any:
    order = axes("permute", _sizes("permute", dims), x.ndim)
    if len(order) != x.ndim:
        raise ValueError(f"permute: {len(order)} dims given for {x.ndim} dimensions: shape {x.shape}")
    inverse = tuple(int(i) for i in np.argsort(order))
    return apply("permute", lambda x: (x.transpose(order), lambda dy, need: (dy.transpose(inverse),)), x)


@register("transpose")
def transpose(x: Any, dim0: int, dim1: int) -> Any:
    if x.ndim == 0:
        return x
    a, b = axis("transpose", dim0, x.ndim), axis("transpose", dim1, x.ndim)
    return apply("transpose", lambda x: (x.swapaxes(a, b), lambda dy, need: (dy.swapaxes(a, b),)), x)


@register("squeeze")
def squeeze(x: Any, dim: int | None = None) -> Any:
    drop = [i for i in axes("squeeze", dim, x.ndim) if x.shape[i] == 1]
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in drop))


@register("unsqueeze")
def unsqueeze(x: Any, dim: int) -> Any:
    at = axis("unsqueeze", dim, x.ndim + 1)
    return reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


@register("expand")
def expand(x: Any, *shape: Any) -> Any:
    """``x`` repeated along its dimensions of size 1, without a copy; -1 keeps a size."""
    sizes = _sizes("expand", shape)

    def forward(x: Array) -> Any:
        before = x.shape
        new = len(sizes) - len(before)
        full = tuple(before[i - new] if n == -1 and i >= new else n for i, n in enumerate(sizes))
        try:
            y = np.broadcast_to(x, full)
        except ValueError:
            raise ValueError(f"expand: {before} cannot be repeated to {sizes}: only sizes of 1 can grow") from None
        return y, lambda dy, need: (unbroadcast(dy, before),)

    return apply("expand", forward, x)


@register("getitem")
def getitem(x: Any, key: Any) -> Any:
    keys = key if isinstance(key, tuple) else (key,)
    basic = all(k is None or k is Ellipsis or isinstance(k, (int, slice, np.integer)) for k in keys)

    def forward(x: Array) -> Any:
        shape = x.shape
        y = as_array(x[key])

        def vjp(dy: Array, need: Any) -> Any:
            dx = zeros(shape, dy)
            if basic:
                dx[key] = dy
            elif isinstance(dx, np.ndarray):
                np.add.at(dx, key, dy)  # an element taken twice gets both gradients
            else:
                namespace(dx).add_at(dx, key, dy)
            return (dx,)

        return y, vjp

    return apply("getitem", forward, x)


@register("setitem")
def setitem(x: Any, key: Any, value: Any) -> Any:
    """A copy of ``x`` with ``x[key] = value``: what in-place assignment is made of."""

    def forward(x: Array, value: Any) -> Any:
        y = x.copy()
        try:
            y[key] = value
        except (TypeError, ValueError):
            if shape_of(value) == ():
                raise TypeError(f"assignment to a slice: cannot write {shown(value)} into {x.dtype}") from None
            shapes = f"{shape_of(value)} into {y[key].shape}"
            raise ValueError(f"assignment to a slice: values of shape {shapes} do not broadcast") from None
        value_shape, value_dtype = shape_of(value), getattr(value, "dtype", None)

        def vjp(dy: Array, need: Any) -> Any:
            dx = dy.copy()
            dx[key] = 0
            dvalue = unbroadcast(as_array(dy[key]), value_shape).astype(value_dtype) if need[1] else None
            return dx, dvalue

        return y, vjp

    return apply("setitem", forward, x, value)


def _listed(op: str, tensors: Any) -> None:
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(f"{op}: 'tensors' must be a list or tuple of tensors, got {type(tensors).__name__}")
    if not tensors:
        raise ValueError(f"{op}: needs at least one tensor")
    for i, t in enumerate(tensors):
        expect_arrays(op, **{f"tensors[{i}]": t})
        if t.dtype.kind not in "fiub":
            raise TypeError(f"{op}: 'tensors[{i}]' must hold numbers or booleans, got {t.dtype}")


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """The tensors one after the other along ``dim``; their other sizes must agree (an empty (0,) fits anywhere)."""
    _listed("cat", tensors)
    dtype = tensors[0].dtype
    for t in tensors[1:]:
        dtype = operands("cat", np.empty(0, dtype), np.empty(0, t.dtype))[0].dtype
    tensors = [t if t.dtype == dtype else cast(t, dtype) for t in tensors if t.shape != (0,)] or tensors[:1]
    first = tensors[0].shape
    if not first:
        raise ValueError("cat: 0-d tensors have no dimension to join along; use stack")
    along = axis("cat", dim, len(first))
    for t in tensors:
        if len(t.shape) != len(first) or any(n != m for i, (n, m) in enumerate(zip(t.shape, first)) if i != along):
            raise ValueError(f"cat: shapes {first} and {t.shape} differ outside dim {along}")

    def forward(*arrays: Array) -> Any:
        ends = np.cumsum([a.shape[along] for a in arrays])[:-1].tolist()
        return np.concatenate(arrays, along), lambda dy, need: np.split(dy, ends, along)

    return apply("cat", forward, *tensors)


def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """The tensors, all of one shape, along a new dimension ``dim``."""
    _listed("stack", tensors)
    shapes = {t.shape for t in tensors}
    if len(shapes) != 1:
        raise ValueError(f"stack: the tensors must be of one shape, got shapes {sorted(shapes)}")
    dim = integer("stack", "dim", dim)
    return cat([unsqueeze(t if isinstance(t, Tensor) else plain("stack", "tensors", t), dim) for t in tensors], dim)
