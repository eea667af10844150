"""Optimizer updates on plain arrays: parameters and their state change in place, so there is no ``out=``.

Each function takes one array of each kind, or lists of as many: the parameters of a network in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._backend import Array, backend
from ._check import FLOATS, contiguous, plain, real

__all__ = ["adam_step", "sgd_step"]

Arrays = Array | Sequence[Array]


def _listed(x: Arrays | None, count: int) -> Sequence[Any]:
    return [None] * count if x is None else x if isinstance(x, (list, tuple)) else [x]


def _in_place(op: str, w: Arrays, dw: Arrays, state: dict[str, Arrays | None], *numbers: float) -> None:
    """Run ``op`` on each parameter, after all have been checked: an error leaves every one as it was."""
    names = ("w", "dw", *state)
    ws = _listed(w, 1)
    columns = [ws, *(_listed(x, len(ws)) for x in (dw, *state.values()))]
    if any(len(column) != len(ws) for column in columns):
        counts = ", ".join(f"{len(column)} {name}" for name, column in zip(names, columns))
        raise ValueError(f"{op}: needs as many arrays of each kind, got {counts}")
    rows: list[tuple[Any, ...]] = list(zip(*columns))
    for row in rows:
        _check(op, names, row)
    for row in rows:
        work: list[Any] = [None if x is None else contiguous(x) for x in row]
        getattr(backend(op, work[0]), op)(work[1], work[0], *work[2:], *numbers)
        for name, x, copy in zip(names, row, work):
            if copy is not x and name != "dw":
                x[...] = copy


def _check(op: str, names: Sequence[str], row: Sequence[Any]) -> None:
    """Raise where the arrays of one parameter do not fit together or cannot be written."""
    for name, x in zip(names, row):
        if type(x) is not np.ndarray and (x is not None or name in ("w", "dw", "mean", "square")):
            plain(op, name, x)
    shape, dtype = row[0].shape, row[0].dtype
    if dtype not in FLOATS:
        raise TypeError(f"{op}: 'w' must be float32 or float64, got {dtype}")
    for name, x in zip(names, row):
        if x is None:
            continue
        if x.shape != shape or x.dtype != dtype:
            raise ValueError(f"{op}: 'w' is {shape} {dtype} but '{name}' is {x.shape} {x.dtype}: they must agree")
        if name != "dw" and not getattr(x.flags, "writeable", True):
            raise ValueError(f"{op}: '{name}' is read-only; pass a writable array")


def sgd_step(
    w: Arrays,
    dw: Arrays,
    buffer: Arrays | None = None,
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
    dw. Lists of arrays: one step of each.
    """
    momentum = real("sgd_step", "momentum", momentum)
    if momentum != 0 and buffer is None:
        raise ValueError(f"sgd_step: momentum={momentum} needs a buffer of w's shape; start with zeros and first=True")
    numbers = (lr, momentum, dampening, weight_decay, nesterov, maximize, first)
    _in_place("sgd_step", w, dw, {"buffer": buffer}, *numbers)


def adam_step(
    w: Arrays,
    dw: Arrays,
    mean: Arrays,
    square: Arrays,
    largest: Arrays | None = None,
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
    (AdamW), shrinks w by ``1 - lr * weight_decay``. Lists of arrays: one step of each. Source: Kingma, Ba (2015);
    Loshchilov, Hutter (2019).
    """
    numbers = (lr, beta1, beta2, eps, weight_decay, decoupled, maximize, step)
    _in_place("adam_step", w, dw, {"mean": mean, "square": square, "largest": largest}, *numbers)
