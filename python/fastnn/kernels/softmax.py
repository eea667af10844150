"""Softmax and log-softmax along one dimension, and their gradients, on plain arrays of any shape."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from ._backend import Array
from ._check import floats, integer, launch

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]


@lru_cache(maxsize=512)
def _rows(op: str, shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """The shape as (outer, n, inner) around ``axis``; a 0-d array counts as one row of one element."""
    ndim = len(shape) or 1
    if not -ndim <= axis < ndim:
        raise ValueError(f"{op}: dim {axis} is out of range for shape {shape}: use {-ndim}..{ndim - 1}")
    if not shape:
        return 1, 1, 1
    axis %= ndim
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def _along(op: str, dim: int, out: Array | None, **arrays: Array) -> Array:
    """Run a kernel over arrays of one shape, each seen as (outer, n, inner)."""
    ready = floats(op, **arrays)
    first = ready[0]
    rows = _rows(op, first.shape, integer(op, "dim", dim))
    for name, x in zip(arrays, ready):
        if x.shape != first.shape:
            raise ValueError(f"{op}: '{next(iter(arrays))}' is {first.shape} but '{name}' is {x.shape}")
    views = [x.reshape(rows) for x in ready]
    return launch(op, out, first.shape, views, seen=rows, apart=[x for x in ready if x is not out])


def softmax(x: Array, dim: int, *, out: Array | None = None) -> Array:
    """``exp(x) / sum(exp(x))`` along ``dim``, computed from ``x - max(x)`` so that nothing overflows."""
    return _along("softmax", dim, out, x=x)


def softmax_backward(dy: Array, y: Array, dim: int, *, out: Array | None = None) -> Array:
    """``y * (dy - sum(dy * y))`` along ``dim``, ``y`` the output of softmax."""
    return _along("softmax_backward", dim, out, dy=dy, y=y)


def log_softmax(x: Array, dim: int, *, out: Array | None = None) -> Array:
    """``x - log(sum(exp(x)))`` along ``dim``."""
    return _along("log_softmax", dim, out, x=x)


def log_softmax_backward(dy: Array, y: Array, dim: int, *, out: Array | None = None) -> Array:
    """``dy - exp(y) * sum(dy)`` along ``dim``, ``y`` the output of log_softmax."""
    return _along("log_softmax_backward", dim, out, dy=dy, y=y)
