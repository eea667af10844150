"""Optimizer updates, the norm of all gradients and their scaling: host functions of csrc/cuda/optim.cu.

One launch updates all parameters. What it is given is a table in device memory, a row for each piece of an array; a
table is kept for the next step, which most often has the same arrays, under their addresses and sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .launch import ctype, kernel

if TYPE_CHECKING:
    from .device import Device

PIECE = 4096  # elements a row, as in optim.cu
KEPT = 32
_tables: dict[tuple[Any, ...], Any] = {}  # the one that was used longest ago first


def _table(gpu: Device, *columns: Sequence[Any] | None) -> Any:
    """(pieces, 1 + kinds) int64: the elements of a piece and its address in each column; 0 of a column that is None."""
    first = next(column for column in columns if column is not None)
    addresses = tuple(() if column is None else tuple([x.data.ptr for x in column]) for column in columns)
    key = (gpu, first[0].itemsize if first else 0, tuple([x.size for x in first]), addresses)
    table = _tables.pop(key, None)
    if table is None:
        with gpu.current():
            table = gpu.xp.asarray(_rows(*key[1:]))
        if len(_tables) >= KEPT:
            del _tables[next(iter(_tables))]
    _tables[key] = table
    return table


def _rows(itemsize: int, sizes: tuple[int, ...], addresses: tuple[tuple[int, ...], ...]) -> Any:
    rows = [np.empty((0, 1 + len(addresses)), np.int64)]
    for i, size in enumerate(sizes):
        begins = np.arange(0, size, PIECE)
        columns = [np.minimum(PIECE, size - begins)]
        columns += [a[i] + begins * itemsize if a else np.zeros_like(begins) for a in addresses]
        rows.append(np.stack(columns, 1))
    return np.concatenate(rows)


@kernel
def sgd_step(
    gpu: Device,
    dw: Sequence[Any],
    w: Sequence[Any],
    buffer: Sequence[Any] | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: int,
    maximize: int,
    first: int,
) -> None:
    table = _table(gpu, dw, w, buffer)
    numbers = (lr, momentum, 1 - dampening, weight_decay, nesterov, maximize, first)
    gpu.launch("optim", f"sgd_step<{ctype(w[0].dtype)}>", len(table), 256, table, *numbers)


@kernel
def adam_step(
    gpu: Device,
    dw: Sequence[Any],
    w: Sequence[Any],
    mean: Sequence[Any],
    square: Sequence[Any],
    largest: Sequence[Any] | None,
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
    table = _table(gpu, dw, w, mean, square, largest)
    penalty, shrink = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    size, scale = lr / (1 - beta1**step), 1 / (1 - beta2**step) ** 0.5
    numbers = (1 - beta1, beta2, 1 - beta2, eps, penalty, shrink, size, scale, maximize)
    gpu.launch("optim", f"adam_step<{ctype(w[0].dtype)}>", len(table), 256, table, *numbers)


@kernel
def scale(gpu: Device, x: Sequence[Any], factor: float) -> None:
    table = _table(gpu, x)
    gpu.launch("optim", f"scale<{ctype(x[0].dtype)}>", len(table), 256, table, factor)


@kernel
def total_norm(gpu: Device, x: Sequence[Any], y: Any, largest: int) -> None:
    table = _table(gpu, x)
    partial = gpu.empty(len(table), "float64")
    gpu.launch("optim", f"norm_pieces<{ctype(x[0].dtype)}>", len(table), 256, table, partial, largest)
    gpu.launch("optim", "finish_norm", 1, 256, partial, y, len(table), largest)
