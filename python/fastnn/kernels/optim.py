"""Optimizer updates on plain arrays, and the norm of all gradients: arrays change in place, so there is no ``out=``.

Each function takes one array of each kind, or lists of as many: the parameters of a network in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._backend import Array, attempt, backend, device_of, on, zeros
from ._check import FLOATS, contiguous, deliver, expect_one_device, plain, real

__all__ = ["adam_step", "scale", "sgd_step", "total_norm"]

Arrays = Array | Sequence[Array]


def _listed(x: Arrays) -> Sequence[Any]:
    return x if isinstance(x, (list, tuple)) else [x]


def _in_place(op: str, arrays: dict[str, Arrays | None], *numbers: float) -> None:
    """Run ``op`` on all parameters at once. ``arrays``: dw, w and the state, as the kernel has them."""
    lists = [x if x is None or x.__class__ is list else _listed(x) for x in arrays.values()]
    if getattr(attempt, op)(*lists, *numbers) is None and not _again(op, lists, numbers):
        columns = dict(zip(arrays, lists))
        _one_by_one(op, {name: x for name, x in columns.items() if x is not None}, columns, numbers)


def _again(op: str, columns: list[Any], numbers: Sequence[float]) -> bool:
    """On a GPU, run ``op`` if it has run on the same arrays before."""
    gpu = device_of(columns[0][0]) if columns[0] else None
    if gpu is None:
        return False
    from ..cuda.optim import again

    return again(gpu, op, columns, numbers)


def _one_by_one(op: str, given: dict[str, Sequence[Any]], columns: dict[str, Any], numbers: Sequence[float]) -> None:
    """Arrays that are of two dtypes, need a copy or share memory: each parameter for itself, all checked first."""
    names, rows = list(given), list(zip(*given.values()))
    for name in ("dw", "w"):
        if columns.get(name, ()) is None:
            plain(op, name, None)  # raises
    if any(len(column) != len(rows) for column in given.values()):
        counts = ", ".join(f"{len(column)} {name}" for name, column in given.items())
        raise ValueError(f"{op}: needs as many arrays of each kind, got {counts}")
    for row in rows:
        _check(op, names, row)
    if rows and device_of(rows[0][0]) and _at_once(names, rows):
        getattr(backend(op, rows[0][0]), op)(*columns.values(), *numbers)
        return
    for row in rows:
        work = {name: contiguous(x) for name, x in zip(names, row)}
        lists = (None if name not in work else [work[name]] for name in columns)
        getattr(backend(op, row[0]), op)(*lists, *numbers)
        for name, x in zip(names, row):
            if work[name] is not x and name != "dw":
                deliver(work[name], x)


def _at_once(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a GPU can take the arrays in one call: contiguous, of one dtype, what is written sharing no memory."""
    spans = []
    for row in rows:
        for name, x in zip(names, row):
            if x.dtype != rows[0][0].dtype or not x.flags.c_contiguous:
                return False
            if x.size:
                spans.append((x.data.ptr, x.data.ptr + x.nbytes, name != "dw"))
    end = written = 0  # the furthest end so far: of all, and of those that are written
    for begin, stop, writes in sorted(spans):
        if begin < (end if writes else written):
            return False
        end = max(end, stop)
        written = max(written, stop) if writes else written
    return True


def _check(op: str, names: Sequence[str], row: Sequence[Any]) -> None:
    """Raise where the arrays of one parameter do not fit together or cannot be written."""
    for name, x in zip(names, row):
        plain(op, name, x)
    expect_one_device(op, **dict(zip(names, row)))
    first = "w" if "w" in names else names[0]
    w = row[names.index(first)]
    if w.dtype not in FLOATS:
        raise TypeError(f"{op}: '{first}' must be float32 or float64, got {w.dtype}")
    for name, x in zip(names, row):
        if x.shape != w.shape or x.dtype != w.dtype:
            raise ValueError(
                f"{op}: '{first}' is {w.shape} {w.dtype} but '{name}' is {x.shape} {x.dtype}: they must agree"
            )
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
    _in_place("sgd_step", {"dw": dw, "w": w, "buffer": buffer}, *numbers)


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
    arrays = {"dw": dw, "w": w, "mean": mean, "square": square, "largest": largest}
    _in_place("adam_step", arrays, *numbers)


def total_norm(x: Arrays, p: float = 2.0) -> float:
    """The p-norm of all elements of the arrays as one vector; ``inf`` means the largest absolute value."""
    p = real("total_norm", "p", p)
    if not p > 0:
        raise ValueError(f"total_norm: 'p' must be positive, got {p}")
    arrays = [plain("total_norm", "x", a) for a in _listed(x)]
    for a in arrays:
        if a.dtype not in FLOATS:
            raise TypeError(f"total_norm: 'x' must be float32 or float64, got {a.dtype}")
    if p not in (2.0, np.inf):
        with np.errstate(over="ignore"):  # inf, as for any norm beyond the numbers
            total = sum((_power_sum(a, p) for a in arrays), 0.0)
            return float(np.float64(total) ** (1 / p))
    parts = []
    for dtype in FLOATS:
        group = [contiguous(a) for a in arrays if a.dtype == dtype]
        if group:
            y = zeros((), group[0], np.float64)
            backend("total_norm", group[0]).total_norm(group, y, p == np.inf)
            parts.append(float(y))
    return max(parts, default=0.0, key=lambda n: (n != n, n)) if p == np.inf else float(sum(parts) ** 0.5)


def _power_sum(x: Any, p: float) -> float:
    with on(x):
        return float((abs(x) ** p).sum(dtype=np.float64))


def scale(x: Arrays, factor: float) -> None:
    """``x *= factor``, each array in place."""
    factor = real("scale", "factor", factor)
    _in_place("scale", {"x": x}, factor)
