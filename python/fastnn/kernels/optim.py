"""Optimizer updates on plain arrays: the parameter and its state change in place, so there is no ``out=``."""

from __future__ import annotations

from ._backend import Array, backend
from ._check import FLOATS, contiguous

__all__ = ["adam_step", "sgd_step"]


def _in_place(op: str, w: Array, dw: Array, state: dict[str, Array | None], *numbers: float) -> None:
    """Run ``op``; arrays that are not C-contiguous are updated through a copy."""
    if w.dtype not in FLOATS:
        raise TypeError(f"{op}: 'w' must be float32 or float64, got {w.dtype}")
    for name, x in (("dw", dw), *state.items()):
        if x is not None and (x.shape != w.shape or x.dtype != w.dtype):
            raise ValueError(f"{op}: 'w' is {w.shape} {w.dtype} but '{name}' is {x.shape} {x.dtype}: they must agree")
    changed = [w, *state.values()]
    work = [None if x is None else contiguous(x) for x in changed]
    getattr(backend(op, w), op)(contiguous(dw), *work, *numbers)
    for x, copy in zip(changed, work):
        if x is not None and copy is not x:
            x[...] = copy


def sgd_step(
    w: Array,
    dw: Array,
    buffer: Array | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    first: bool = False,
) -> None:
    """One step of gradient descent, in place: ``g = dw + weight_decay * w``, ``w -= lr * g``.

    With ``buffer`` (the state of momentum, of w's shape): ``buffer = momentum * buffer + (1 - dampening) * g`` (``g``
    itself on the ``first`` step) takes the place of g, or for Nesterov ``g + momentum * buffer``. ``maximize`` negates
    dw.
    """
    numbers = (lr, momentum, dampening, weight_decay, nesterov, maximize, first)
    _in_place("sgd_step", w, dw, {"buffer": buffer}, *numbers)


def adam_step(
    w: Array,
    dw: Array,
    mean: Array,
    square: Array,
    largest: Array | None = None,
    *,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
) -> None:
    """One step of Adam, in place, the ``step``-th (from 1): mean and square are the running means of dw and dw^2.

    ``w -= lr * (mean / (1 - beta1^step)) / (sqrt(square / (1 - beta2^step)) + eps)``. ``largest`` (AMSGrad) keeps the
    maximum of square and takes its place. ``weight_decay`` is added to dw as ``weight_decay * w`` or, ``decoupled``
    (AdamW), shrinks w by ``1 - lr * weight_decay``. Source: Kingma, Ba (2015); Loshchilov, Hutter (2019).
    """
    numbers = (lr, beta1, beta2, eps, weight_decay, decoupled, maximize, step)
    _in_place("adam_step", w, dw, {"mean": mean, "square": square, "largest": largest}, *numbers)
