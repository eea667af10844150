"""Optimizer updates, the norm of all gradients and their scaling: host functions of csrc/cuda/optim.cu.

One launch updates all parameters. What it is given is a table in device memory, a row for each piece of an array. It is
kept for the next step, which most often has the same arrays: ``again`` then runs a step on arrays that were checked
before, and looks at each only once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .launch import ctype, kernel

if TYPE_CHECKING:
    from .device import Device

__all__ = ["again"]

PIECE = 4096  # elements a row, as in optim.cu
KEPT = 32
_tables: dict[Any, Any] = {}  # by device and arrays; the one that was used longest ago first

Columns = Sequence["Sequence[Any] | None"]


def _key(gpu: Device, columns: Columns) -> Any:
    """What the table depends on, and all that was checked of the arrays."""
    return gpu, tuple(
        [
            None if column is None else tuple([(x.data.ptr, x.shape, x.dtype, x.flags.c_contiguous) for x in column])
            for column in columns
        ]
    )


def _table(gpu: Device, *columns: Sequence[Any] | None) -> Any:
    """(pieces, 1 + kinds) int64: the elements of a piece and its address in each column; 0 of a column that is None."""
    key = _key(gpu, columns)
    table = _tables.pop(key, None)
    if table is None:
        with gpu.current():
            table = gpu.xp.asarray(_rows(columns))
        if len(_tables) >= KEPT:
            del _tables[next(iter(_tables))]
    _tables[key] = table
    return table


def _rows(columns: Columns) -> Any:
    rows = [np.empty((0, 1 + len(columns)), np.int64)]
    for i, x in enumerate(columns[0] or ()):
        begins = np.arange(0, x.size, PIECE)
        places = [np.zeros_like(begins) if c is None else c[i].data.ptr + begins * x.itemsize for c in columns]
        rows.append(np.stack([np.minimum(PIECE, x.size - begins), *places], 1))
    return np.concatenate(rows)


def again(gpu: Device, op: str, columns: Columns, numbers: Sequence[Any]) -> bool:
    """Run ``op`` on arrays that it has run on before, or return False: they are new, and to be checked."""
    try:
        table = _tables.get(_key(gpu, columns))
    except AttributeError:  # not only arrays of a GPU
        return False
    if table is None or op not in _STEPS:
        return False
    _STEPS[op](gpu, table, columns[0], *numbers)
    return True


def _launch(gpu: Device, op: str, table: Any, like: Any, *numbers: Any) -> None:
    if len(table):
        gpu.launch("optim", f"{op}<{ctype(like[0].dtype)}>", len(table), 256, table, *numbers)


def _sgd(
    gpu: Device,
    table: Any,
    like: Any,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: int,
    maximize: int,
    first: int,
) -> None:
    numbers = (lr, momentum, 1 - dampening, weight_decay, nesterov, maximize, first)
    _launch(gpu, "sgd_step", table, like, *numbers)


def _adam(
    gpu: Device,
    table: Any,
    like: Any,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: int,
    maximize: int,
    step: int,
) -> None:
    if step < 1:
        raise ValueError(f"adam_step: step counts from 1, got {step}")
    penalty, shrink = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    size, scale = lr / (1 - beta1**step), 1 / (1 - beta2**step) ** 0.5
    numbers = (1 - beta1, beta2, 1 - beta2, eps, penalty, shrink, size, scale, maximize)
    _launch(gpu, "adam_step", table, like, *numbers)


def _scale(gpu: Device, table: Any, like: Any, factor: float) -> None:
    _launch(gpu, "scale", table, like, factor)


_STEPS: dict[str, Callable[..., None]] = {"sgd_step": _sgd, "adam_step": _adam, "scale": _scale}


@kernel
def sgd_step(gpu: Device, dw: Any, w: Any, buffer: Any, *numbers: Any) -> None:
    _sgd(gpu, _table(gpu, dw, w, buffer), dw, *numbers)


@kernel
def adam_step(gpu: Device, dw: Any, w: Any, mean: Any, square: Any, largest: Any, *numbers: Any) -> None:
    _adam(gpu, _table(gpu, dw, w, mean, square, largest), dw, *numbers)


@kernel
def scale(gpu: Device, x: Any, factor: float) -> None:
    _scale(gpu, _table(gpu, x), x, factor)


@kernel
def total_norm(gpu: Device, x: Any, y: Any, largest: int) -> None:
    table = _table(gpu, x)
    partial = gpu.empty(len(table), "float64")
    _launch(gpu, "norm_pieces", table, x, partial, largest)
    gpu.launch("optim", "finish_norm", 1, 256, partial, y, len(table), largest)
