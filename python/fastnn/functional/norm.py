"""Normalisation: batch norm, layer norm, local response norm; the loops are in kernels/norm.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..autograd import T, Tensor, apply
from ..kernels._backend import Array, zeros
from ..kernels._check import expect_floats, plain, real
from ..kernels._check import sizes as sizes_of

__all__ = ["batch_norm", "layer_norm", "local_response_norm"]


def _move(running: Array, batch: Array, momentum: float) -> None:
    """``running = (1 - momentum) * running + momentum * batch``, in place."""
    running *= 1 - momentum
    running += momentum * batch


def batch_norm(
    input: T,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> T:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` per channel of input ``(N, C, ...)``.

    In training the moments are the batch's, and the running ones (if given) move towards them by ``momentum``, in
    place, the variance unbiased; otherwise the running ones are used. Source: Ioffe and Szegedy (2015).
    """
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm: evaluation needs running_mean and running_var; pass them, or training=True")
    moments: dict[str, Any] = {"running_mean": running_mean, "running_var": running_var}
    expect_floats("batch_norm", input=input, **moments, weight=weight, bias=bias, optional=(*moments, "weight", "bias"))
    momentum, eps = real("batch_norm", "momentum", momentum), real("batch_norm", "eps", eps)
    moving_mean: Any
    moving_var: Any
    moving_mean, moving_var = (
        None if r is None else plain("batch_norm", name, r.array if isinstance(r, Tensor) else r)
        for name, r in moments.items()
    )
    shape: tuple[int, ...] = tuple(input.shape[1:2])
    for name, a in {**moments, "weight": weight, "bias": bias}.items():
        if a is not None and a.shape != shape:
            raise ValueError(
                f"batch_norm: '{name}' must be {shape}, a number per channel of input {input.shape}, got {a.shape}"
            )

    def forward(x: Array, w: Array | None, b: Array | None) -> Any:
        if x.size == 0 and x.ndim > 1:  # nothing to take moments of: the running ones stay, gradients are zero
            return x.copy(), lambda dy, need: (dy, zeros((dy.shape[1],), dy), zeros((dy.shape[1],), dy))
        if training:
            y, mean, var = kernels.batch_norm(x, w, b, eps=eps)
            number = x.size // max(mean.size, 1)
            if moving_mean is not None:
                _move(moving_mean, mean, momentum)
            if moving_var is not None:
                _move(moving_var, var * (number / max(number - 1, 1)), momentum)
        else:
            mean, var = moving_mean.copy(), moving_var.copy()
            y = kernels.batch_norm_apply(x, mean, var, w, b, eps=eps)

        def vjp(dy: Array, need: Any) -> Any:
            return kernels.batch_norm_backward(dy, x, mean, var, w, eps=eps, training=training)

        return y, vjp

    return apply("batch_norm", forward, input, weight, bias)


def layer_norm(
    input: T, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> T:
    """``(x - mean) / sqrt(var + eps) * weight + bias``, each sample over its last dimensions ``normalized_shape``.

    Shapes: input ``(*, *normalized_shape)``, weight and bias ``normalized_shape``. Source: Ba, Kiros, Hinton (2016).
    """
    expect_floats("layer_norm", input=input, weight=weight, bias=bias)
    given = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    sizes: tuple[int, ...] = sizes_of("layer_norm", "normalized_shape", given)
    if not sizes or tuple(input.shape[-len(sizes) :]) != sizes:
        raise ValueError(f"layer_norm: normalized_shape {sizes} must be the last sizes of the input {input.shape}")
    for name, a in (("weight", weight), ("bias", bias)):
        if a is not None and a.shape != sizes:
            raise ValueError(f"layer_norm: '{name}' must be {sizes}, as normalized_shape, got {a.shape}")
    n = int(np.prod(sizes, dtype=np.int64))
    rows = int(np.prod(input.shape[: len(input.shape) - len(sizes)], dtype=np.int64))

    def forward(x: Array, w: Array | None, b: Array | None) -> Any:
        shape = x.shape
        if x.size == 0:
            return x.copy(), lambda dy, need: (dy, zeros(sizes, dy), zeros(sizes, dy))
        flat = x.reshape(rows, n)
        flat_w, flat_b = (None if a is None else a.reshape(n) for a in (w, b))
        y, mean, rstd = kernels.layer_norm(flat, flat_w, flat_b, eps=eps)

        def vjp(dy: Array, need: Any) -> Any:
            dx, dw, db = kernels.layer_norm_backward(dy.reshape(rows, n), flat, mean, rstd, flat_w)
            return dx.reshape(shape), dw.reshape(sizes), db.reshape(sizes)

        return y.reshape(shape), vjp

    return apply("layer_norm", forward, input, weight, bias)


def local_response_norm(input: T, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> T:
    """``x (k + alpha / size * (sum of x^2 over size neighbouring channels))^-beta`` of input ``(N, C, ...)``.

    Source: Krizhevsky, Sutskever and Hinton (2012), with alpha divided by ``size`` as in PyTorch.
    """
    expect_floats("local_response_norm", input=input)
    if len(input.shape) < 3:
        raise ValueError(f"local_response_norm: input must be (N, C, ...) of 3 or more dimensions, got {input.shape}")

    def forward(x: Array) -> Any:
        y, s = kernels.local_response_norm(x, size, alpha=alpha, beta=beta, k=k)

        def vjp(dy: Array, need: Any) -> Any:
            return (kernels.local_response_norm_backward(dy, x, s, size, alpha=alpha, beta=beta),)

        return y, vjp

    return apply("local_response_norm", forward, input)
