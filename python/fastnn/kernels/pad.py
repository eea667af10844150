"""Padding and its gradient on plain arrays, one axis after the other, by tables of where elements come from."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as as_int

import numpy as np

from ._backend import Array, backend, empty
from ._check import choice, deliver, floats, output, real, shown, sizes

__all__ = ["pad", "pad_backward"]

MODES = ("constant", "reflect", "replicate", "circular")


def _tables(op: str, shape: tuple[int, ...], pads: Sequence[int], mode: str) -> list[tuple[int, Array]]:
    """For each axis that changes, last axis first: its number, and for every new element the old one's index or -1."""
    choice(op, "mode", mode, MODES)
    try:
        pads = [as_int(p) for p in pads]
    except (TypeError, ValueError):
        raise TypeError(f"{op}: 'pad' must be a sequence of ints, got {shown(pads)}") from None
    if max(map(abs, (*pads, *shape)), default=0) >= 2**31:
        raise ValueError(f"{op}: sizes and pads must be below 2^31, got {shape} padded by {tuple(pads)}")
    if len(pads) % 2:
        raise ValueError(f"{op}: 'pad' must hold two numbers per axis, last axis first; got {len(pads)}: {tuple(pads)}")
    axes = len(pads) // 2
    if axes > len(shape):
        raise ValueError(f"{op}: {len(pads)} numbers pad {axes} axes, but the input {shape} has {len(shape)}")
    if mode != "constant" and not (1 <= axes <= 3 and len(shape) in (axes + 1, axes + 2)):
        raise ValueError(
            f"{op}: mode {mode!r} pads the last 1, 2 or 3 axes of an input with one or two axes before them; "
            f"got {len(pads)} numbers for an input of shape {shape}"
        )
    tables = []
    for i in range(axes):
        axis, before, after = len(shape) - 1 - i, pads[2 * i], pads[2 * i + 1]
        n = shape[axis]
        if before == after == 0:
            continue
        if n + before + after < 0 or (mode != "constant" and n + before + after == 0):
            raise ValueError(
                f"{op}: axis {axis} of size {n} with pads {before} and {after} would be {n + before + after}"
            )
        if mode == "circular" and min(before, after) < 0:
            raise ValueError(f"{op}: mode 'circular' cannot crop; got {before} and {after} for axis {axis}")
        limit = {"reflect": n - 1, "circular": n}.get(mode)
        if limit is not None and max(before, after) > limit:
            raise ValueError(
                f"{op}: mode {mode!r} adds at most {limit} on each side of axis {axis} (size {n}), got "
                f"{before}, {after}"
            )
        if mode == "replicate" and n == 0:
            raise ValueError(f"{op}: mode 'replicate' needs elements to repeat, but axis {axis} of {shape} is empty")
        position = np.arange(-before, n + after, dtype=np.int64)
        if mode == "constant":
            position[(position < 0) | (position >= n)] = -1
        elif mode == "reflect":
            position = np.abs(position)
            position = np.where(position >= n, 2 * (n - 1) - position, position)
        elif mode == "replicate":
            position = position.clip(0, n - 1)
        else:
            position %= n
        tables.append((axis, position))
    return tables


def _around(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """How many elements the axes before and after ``axis`` hold."""
    return int(np.prod(shape[:axis], dtype=np.int64)), int(np.prod(shape[axis + 1 :], dtype=np.int64))


def pad(x: Array, pad: Sequence[int], *, mode: str = "constant", value: float = 0.0, out: Array | None = None) -> Array:
    """``x`` with elements added around it, as ``torch.nn.functional.pad``: two numbers per axis, last axis first.

    ``mode`` is constant (``value``), reflect, replicate or circular; negative numbers crop. Result: each axis grows by
    its two numbers.
    """
    (ready,) = floats("pad", x=x)
    value = real("pad", "value", value)
    steps = _tables("pad", ready.shape, pad, mode)
    shape = list(ready.shape)
    for axis, table in steps:
        shape[axis] = len(table)
    final = output("pad", out, tuple(shape), ready, ready)
    if not steps:
        final[...] = ready
    for i, (axis, table) in enumerate(steps):
        outer, inner = _around(ready.shape, axis)
        new = (*ready.shape[:axis], len(table), *ready.shape[axis + 1 :])
        y = final if i == len(steps) - 1 else empty(new, ready)
        flat = ready.reshape(outer, ready.shape[axis], inner)
        backend("pad", ready).pad_axis(flat, table, y.reshape(outer, len(table), inner), value)
        ready = y
    return deliver(final, out)


def pad_backward(
    dy: Array, shape: tuple[int, ...], pad: Sequence[int], *, mode: str = "constant", out: Array | None = None
) -> Array:
    """The gradient of ``pad``'s input of the given ``shape``: each element gets what its copies got."""
    (ready,) = floats("pad_backward", dy=dy)
    shape = sizes("pad_backward", "shape", shape)
    steps = _tables("pad_backward", shape, pad, mode)
    padded = list(shape)
    for axis, table in steps:
        padded[axis] = len(table)
    if ready.shape != tuple(padded):
        raise ValueError(
            f"pad_backward: dy is {ready.shape}, but {tuple(shape)} padded by {tuple(pad)} is {tuple(padded)}"
        )
    final = output("pad_backward", out, tuple(shape), ready, ready)
    if not steps:
        final[...] = ready
    for i, (axis, table) in enumerate(reversed(steps)):
        outer, inner = _around(ready.shape, axis)
        new = (*ready.shape[:axis], shape[axis], *ready.shape[axis + 1 :])
        dx = final if i == len(steps) - 1 else empty(new, ready)
        flat = ready.reshape(outer, len(table), inner)
        backend("pad_backward", ready).pad_axis_backward(flat, table, dx.reshape(outer, shape[axis], inner))
        ready = dx
    return deliver(final, out)
