"""Checks that every kernel shares: arrays, dtypes, outputs, sizes. Each raises before any memory is touched and names
the op, the argument, what was expected, what came, and the likely fix."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from ._backend import Array, empty

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def floats(op: str, **arrays: Array | None) -> list[Any]:
    """The arrays, C-contiguous (copied if not), all float32 or all float64; any but the first may be None."""
    ready: list[Array | None] = []
    first: tuple[str, Array] | None = None
    for name, x in arrays.items():
        if x is None:
            if not ready:
                raise TypeError(f"{op}: '{name}' must be an array, got None")
            ready.append(None)
            continue
        if isinstance(x, np.generic):  # NumPy's own 0-d results
            x = np.asarray(x)
        if not hasattr(x, "dtype") or not hasattr(x, "shape"):
            raise TypeError(f"{op}: '{name}' must be an array, got {type(x).__name__}; use numpy.asarray(...)")
        if x.dtype not in FLOATS:
            raise TypeError(
                f"{op}: '{name}' must be float32 or float64, got {x.dtype}; use {name}.astype(numpy.float32)"
            )
        if first is None:
            first = (name, x)
        elif x.dtype != first[1].dtype:
            raise TypeError(
                f"{op}: '{first[0]}' is {first[1].dtype} but '{name}' is {x.dtype}; convert one with .astype(...)"
            )
        ready.append(contiguous(x))
    return ready


def contiguous(x: Array) -> Array:
    """``x`` itself if it is C-contiguous, aligned and in native byte order, else a copy that is."""
    flags = x.flags
    if flags.c_contiguous and getattr(flags, "aligned", True) and x.dtype.isnative:
        return x
    copy = empty(x.shape, x, x.dtype.newbyteorder("="))
    copy[...] = x
    return copy


def dims(op: str, name: str, x: Array, allowed: Sequence[int], layout: str) -> None:
    """Raise unless ``x`` has one of the allowed numbers of dimensions; ``layout`` shows them: '(N, C, H, W)'."""
    if x.ndim not in allowed:
        raise ValueError(f"{op}: '{name}' must be {layout}, got {x.ndim} dimensions: shape {x.shape}")


def pair(op: str, name: str, value: int | Sequence[int], *, least: int) -> tuple[int, int]:
    """An int, or two of them, as (height, width); each at least ``least``."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) == 1:
        values = values * 2
    try:
        height, width = (index(v) for v in values)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: '{name}' must be an int or a pair of ints, got {value!r}") from None
    if height < least or width < least:
        raise ValueError(f"{op}: '{name}' must be at least {least}, got {value!r}")
    return height, width


def output(op: str, out: Array | None, shape: tuple[int, ...], like: Array, *inputs: Array | None) -> Array:
    """The array that a kernel writes: ``out`` where it can be written directly, else fresh memory.

    ``inputs`` are the arrays that the kernel still reads while it writes: ``out`` must not overlap them. Elementwise
    kernels pass none that equals ``out`` exactly. Finish with ``return deliver(y, out)``.
    """
    if out is None:
        return empty(shape, like)
    if not isinstance(out, type(like)):
        raise TypeError(f"{op}: 'out' must be a {type(like).__name__} as the input is, got {type(out).__name__}")
    if out.shape != shape or out.dtype != like.dtype:
        raise ValueError(f"{op}: 'out' must be {shape} {like.dtype}, got {out.shape} {out.dtype}")
    if not getattr(out.flags, "writeable", True):
        raise ValueError(f"{op}: 'out' is read-only; pass a writable array")
    if contiguous(out) is not out or any(x is not None and np.may_share_memory(out, x) for x in inputs):
        return empty(shape, like)
    return out


def deliver(y: Array, out: Array | None) -> Array:
    """``y``, copied into ``out`` if the caller gave one and the kernel could not write it directly."""
    if out is None or y is out:
        return y
    out[...] = y
    return out
