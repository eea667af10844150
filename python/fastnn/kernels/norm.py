"""Batch norm, layer norm and local response normalisation on plain arrays, forward and gradient."""

from __future__ import annotations

import numpy as np

from ._backend import Array, backend, empty
from ._check import deliver, floats, integer, output

__all__ = [
    "batch_norm",
    "batch_norm_apply",
    "batch_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
]


def _planes(op: str, x: Array) -> tuple[int, int, int]:
    """(N, C, S) for input of shape (N, C, ...)."""
    if x.ndim < 2:
        raise ValueError(f"{op}: input must be (N, C, ...), got {x.ndim} dimensions: shape {x.shape}")
    return x.shape[0], x.shape[1], int(np.prod(x.shape[2:], dtype=np.int64))


def _per_channel(op: str, channels: int, **arrays: Array | None) -> None:
    for name, a in arrays.items():
        if a is not None and a.shape != (channels,):
            raise ValueError(f"{op}: '{name}' must be ({channels},) for {channels} channels, got {a.shape}")


def _same(op: str, **arrays: Array) -> None:
    (first, a), *others = arrays.items()
    for name, b in others:
        if a.shape != b.shape:
            raise ValueError(f"{op}: '{first}' is {a.shape} but '{name}' is {b.shape}: they must agree")


def batch_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5, out: Array | None = None
) -> tuple[Array, Array, Array]:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with the batch's own moments of each channel.

    Shapes: x ``(N, C, ...)``, weight and bias ``(C,)``. Returns the result, mean and (biased) variance, both ``(C,)``.
    Raises ValueError where a channel has fewer than two elements. Source: Ioffe and Szegedy (2015).
    """
    op = "batch_norm"
    x, weight, bias = floats(op, x=x, weight=weight, bias=bias)
    n, c, s = _planes(op, x)
    _per_channel(op, c, weight=weight, bias=bias)
    if n * s == 1 or (n * s == 0 and c > 0):
        raise ValueError(
            f"{op}: training takes more than one value per channel, but input {x.shape} has {n} * {s} = {n * s}; "
            "use a larger batch, or evaluation mode"
        )
    y = output(op, out, x.shape, x, weight, bias, *(() if out is x else (x,)))
    mean, var = empty((c,), x), empty((c,), x)
    backend(op, x).batch_norm(x.reshape(n, c, s), weight, bias, y.reshape(n, c, s), mean, var, eps)
    return deliver(y, out), mean, var


def batch_norm_apply(
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with given moments; x ``(N, C, ...)``, the others ``(C,)``."""
    op = "batch_norm_apply"
    x, mean, var, weight, bias = floats(op, x=x, mean=mean, var=var, weight=weight, bias=bias)
    n, c, s = _planes(op, x)
    _per_channel(op, c, mean=mean, var=var, weight=weight, bias=bias)
    y = output(op, out, x.shape, x, mean, var, weight, bias, *(() if out is x else (x,)))
    backend(op, x).batch_norm_apply(x.reshape(n, c, s), mean, var, weight, bias, y.reshape(n, c, s), eps)
    return deliver(y, out)


def batch_norm_backward(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    *,
    eps: float = 1e-5,
    training: bool = True,
    out: Array | None = None,
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias); ``training`` says that mean and var were the batch's own, so that they have gradients."""
    op = "batch_norm_backward"
    dy, x, mean, var, weight = floats(op, dy=dy, x=x, mean=mean, var=var, weight=weight)
    n, c, s = _planes(op, x)
    _same(op, dy=dy, x=x)
    _per_channel(op, c, mean=mean, var=var, weight=weight)
    dx = output(op, out, x.shape, x, dy, x, mean, var, weight)
    dweight, dbias = empty((c,), x), empty((c,), x)
    planes = (n, c, s)
    backend(op, x).batch_norm_backward(
        dy.reshape(planes), x.reshape(planes), mean, var, weight, dx.reshape(planes), dweight, dbias, eps, training
    )
    return deliver(dx, out), dweight, dbias


def layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5, out: Array | None = None
) -> tuple[Array, Array, Array]:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with the moments of each row of ``x``.

    Shapes: x ``(rows, n)``, weight and bias ``(n,)``. Returns the result, and mean and ``1 / sqrt(var + eps)`` of each
    row. Source: Ba, Kiros and Hinton (2016).
    """
    op = "layer_norm"
    x, weight, bias = floats(op, x=x, weight=weight, bias=bias)
    if x.ndim != 2 or (x.shape[1] == 0 and x.shape[0] > 0):
        raise ValueError(f"{op}: 'x' must be (rows, n) with n of at least 1, got {x.shape}")
    _per_channel(op, x.shape[1], weight=weight, bias=bias)
    y = output(op, out, x.shape, x, weight, bias, *(() if out is x else (x,)))
    mean, rstd = empty((x.shape[0],), x), empty((x.shape[0],), x)
    backend(op, x).layer_norm(x, weight, bias, y, mean, rstd, eps)
    return deliver(y, out), mean, rstd


def layer_norm_backward(
    dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None = None, *, out: Array | None = None
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) from what ``layer_norm`` returned."""
    op = "layer_norm_backward"
    dy, x, mean, rstd, weight = floats(op, dy=dy, x=x, mean=mean, rstd=rstd, weight=weight)
    if x.ndim != 2 or (x.shape[1] == 0 and x.shape[0] > 0):
        raise ValueError(f"{op}: 'x' must be (rows, n) with n of at least 1, got {x.shape}")
    _same(op, dy=dy, x=x)
    _per_channel(op, x.shape[1], weight=weight)
    _per_channel(op, x.shape[0], mean=mean, rstd=rstd)
    dx = output(op, out, x.shape, x, dy, x, mean, rstd, weight)
    dweight, dbias = empty((x.shape[1],), x), empty((x.shape[1],), x)
    run = backend(op, x)
    run.layer_norm_backward(dy, x, mean, rstd, weight, dx)
    run.layer_norm_backward_weight(dy, x, mean, rstd, dweight, dbias)
    return deliver(dx, out), dweight, dbias


def _window(op: str, size: int) -> int:
    size = integer(op, "size", size)
    if not 1 <= size < 2**31:
        raise ValueError(f"{op}: 'size' must be at least 1, got {size}")
    return size


def local_response_norm(
    x: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, out: Array | None = None
) -> tuple[Array, Array]:
    """``x s^-beta`` with ``s = k + alpha / size * (sum of x^2 over size neighbouring channels)``; returns it and ``s``.

    Shapes: x ``(N, C, ...)``. Source: Krizhevsky, Sutskever and Hinton (2012); alpha is divided by size as in PyTorch.
    """
    op = "local_response_norm"
    (x,) = floats(op, x=x)
    planes = _planes(op, x)
    size = _window(op, size)
    y = output(op, out, x.shape, x, x)
    s = empty(x.shape, x)
    backend(op, x).local_response_norm(x.reshape(planes), y.reshape(planes), s.reshape(planes), size, alpha, beta, k)
    return deliver(y, out), s


def local_response_norm_backward(
    dy: Array, x: Array, s: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75, out: Array | None = None
) -> Array:
    """The gradient of ``local_response_norm``'s input, from the ``s`` it returned."""
    op = "local_response_norm_backward"
    dy, x, s = floats(op, dy=dy, x=x, s=s)
    planes = _planes(op, x)
    _same(op, dy=dy, x=x, s=s)
    size = _window(op, size)
    dx = output(op, out, x.shape, x, dy, x, s)
    arrays = (a.reshape(planes) for a in (dy, x, s, dx))
    backend(op, x).local_response_norm_backward(*arrays, size, alpha, beta)
    return deliver(dx, out)
