"""Checks that every kernel shares: arrays, dtypes, outputs, sizes. Each raises before any memory is touched and names
the op, the argument, what was expected, what came, and the likely fix."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ._backend import Array, attempt, backend, device_of, empty, on, only, overlap, place

if TYPE_CHECKING:
    from ..cuda.device import Device

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def shown(value: Any) -> str:
    """A value as one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def plain(op: str, name: str, x: Any) -> Any:
    """``x`` as an array of the device's own class; TypeError for what is no array, or would lose its mask."""
    if type(x) is np.ndarray:
        return x
    if isinstance(x, (np.ndarray, np.generic)):  # a matrix, a memory map; NumPy's own 0-d results
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"{op}: '{name}' is a masked array, whose mask would be lost; use {name}.filled(...)")
        return np.asarray(x)
    if hasattr(x, "array"):
        raise TypeError(f"{op}: '{name}' must be an array, got {type(x).__name__}; pass its .array")
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise TypeError(f"{op}: '{name}' must be an array, got {type(x).__name__}; use numpy.asarray(...)")
    return x


def expect_arrays(op: str, **arrays: Any) -> None:
    """Raise where an argument is neither a tensor nor an array: for ops that look at shapes before anything else."""
    for name, x in arrays.items():
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise TypeError(f"{op}: '{name}' must be a tensor or an array, got {type(x).__name__}")


def expect_one_device(op: str, **arrays: Any) -> None:
    """Raise where two of the tensors or arrays are on different devices; numbers, NumPy's too, pass."""
    first: tuple[str, Any] | None = None
    for name, x in arrays.items():
        x = getattr(x, "array", x)
        if not hasattr(x, "dtype") or isinstance(x, np.generic):
            continue
        if first is None:
            first = name, x
        elif not (type(x) is type(first[1]) is np.ndarray) and device_of(x) is not device_of(first[1]):
            one, other = place(first[1]), place(x)
            raise ValueError(
                f"{op}: '{first[0]}' is on {one} but '{name}' is on {other}; move one of the tensors with "
                f".to({one!r}) or .to({other!r})"
            )


def expect_floats(op: str, *, optional: Any = ("weight", "bias"), **arrays: Any) -> None:
    """Raise unless the tensors or arrays are all float32 or all float64; the ``optional`` ones may be None."""
    if _usual(arrays, optional, contiguous=False):
        return
    first: tuple[str, Any] | None = None
    kinds = set()
    for name, x in arrays.items():
        if x is None and name in optional:
            continue
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            expect_arrays(op, **{name: x})  # raises
        first = _expect_dtype(op, name, x, first)
        kinds.add(type(getattr(x, "array", x)))
    if len(kinds) > 1:
        expect_one_device(op, **arrays)


expect_floats = _core.quick(expect_floats, ("weight", "bias"))


def _expect_dtype(op: str, name: str, x: Any, first: tuple[str, Any] | None) -> tuple[str, Any]:
    """Raise unless ``x`` is float32 or float64, as the first array is; returns the first's name and dtype."""
    dtype = x.dtype
    if first is None:
        if dtype in FLOATS:
            return name, dtype
    elif dtype == first[1]:
        return first
    if dtype not in FLOATS:
        raise TypeError(f"{op}: '{name}' must be float32 or float64, got {dtype}; use {name}.astype(numpy.float32)")
    assert first is not None
    raise TypeError(f"{op}: '{first[0]}' is {first[1]} but '{name}' is {dtype}; convert one with .astype(...)")


def floats(op: str, *, optional: Any = ("weight", "bias"), **arrays: Array | None) -> list[Any]:
    """The arrays, C-contiguous (copied if not), all float32 or all float64; the ``optional`` ones may be None."""
    if _usual(arrays, optional):
        return list(arrays.values())
    ready: list[Array | None] = []
    first: tuple[str, Any] | None = None
    expect_one_device(op, **arrays)
    for name, x in arrays.items():
        if x is None and name in optional:
            ready.append(None)
            continue
        x = plain(op, name, x)
        first = _expect_dtype(op, name, x, first)
        ready.append(contiguous(x))
    return ready


def usual(arrays: Sequence[Any]) -> Device | None:
    """The only GPU, where the arrays are all on it, contiguous and of one shape and float dtype: the usual call."""
    first = arrays[0]
    gpu = only.get(type(first))
    if gpu is None or gpu.several or first.dtype not in FLOATS:
        return None
    kind, shape, dtype = type(first), first.shape, first.dtype
    for x in arrays:
        if type(x) is not kind or x.dtype != dtype or not x.flags.c_contiguous or x.shape != shape:
            return None
    return gpu


def _usual(arrays: dict[str, Any], optional: Any, contiguous: bool = True) -> bool:
    """Whether all of the arrays but optional ones are on the only GPU, of one float dtype (and contiguous)."""
    kind = real = None
    for name, x in arrays.items():
        if x is None and name in optional:
            continue
        if kind is None:
            kind = type(x)
            gpu = only.get(kind)
            if gpu is None or gpu.several:
                return False
            real = x.dtype
            if real not in FLOATS:
                return False
        if type(x) is not kind or x.dtype != real or (contiguous and not x.flags.c_contiguous):
            return False
    return kind is not None


floats = _core.quick(floats, ("weight", "bias"))  # in C where all is well: it stands before every kernel


def contiguous(x: Array) -> Array:
    """``x`` itself if it is C-contiguous, aligned and in native byte order, else a copy that is."""
    flags = x.flags
    if flags.c_contiguous and getattr(flags, "aligned", True) and x.dtype.isnative:
        return x
    copy = empty(x.shape, x, x.dtype.newbyteorder("="))
    with on(x):
        copy[...] = x
    return copy


def dims(op: str, name: str, x: Array, allowed: Sequence[int], layout: str) -> None:
    """Raise unless ``x`` has one of the allowed numbers of dimensions; ``layout`` shows them: '(N, C, H, W)'."""
    if x.ndim not in allowed:
        raise ValueError(f"{op}: '{name}' must be {layout}, got {x.ndim} dimensions: shape {x.shape}")


def integer(op: str, name: str, value: Any, *, least: int | None = None) -> int:
    """An int, of Python or NumPy, that is at least ``least``."""
    if type(value) is int and (least is None or value >= least):
        return value
    try:
        number = index(value)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: '{name}' must be an int, got {shown(value)}") from None
    if least is not None and number < least:
        raise ValueError(f"{op}: '{name}' must be at least {least}, got {number}")
    return number


def real(op: str, name: str, value: Any) -> float:
    """A real number, as a float."""
    if type(value) is float:
        return value
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise TypeError(f"{op}: '{name}' must be a number, got {shown(value)}") from None


def sizes(op: str, name: str, shape: Any) -> tuple[int, ...]:
    """A shape: a sequence of ints, none negative."""
    try:
        if len(shape) > 32:
            raise TypeError
        found = tuple(map(index, shape))
    except (TypeError, ValueError):
        raise TypeError(f"{op}: '{name}' must be a sequence of ints, got {shown(shape)}") from None
    if min(found, default=0) < 0:
        raise ValueError(f"{op}: '{name}' must have no negative size, got {shown(shape)}")
    return found


def choice(op: str, name: str, value: Any, allowed: Sequence[str | None]) -> None:
    """Raise unless ``value`` is one of the names (or None, where that is allowed)."""
    if (value is None or isinstance(value, str)) and value in allowed:
        return
    from difflib import get_close_matches

    near = get_close_matches(str(value), [a for a in allowed if a], 1)
    *others, last = map(repr, allowed)
    raise ValueError(
        f"{op}: '{name}' must be {', '.join(others)} or {last}, got {shown(value)}"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )


def float_dtype(op: str, dtype: Any) -> np.dtype[Any]:
    """``dtype`` as NumPy's object; float32 or float64."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: 'dtype' must be float32 or float64, got {shown(dtype)}") from None
    if found not in FLOATS:
        raise TypeError(f"{op}: 'dtype' must be float32 or float64, got {found}")
    return found


def pair(op: str, name: str, value: int | Sequence[int], *, least: int) -> tuple[int, int]:
    """An int, or two of them, as (height, width); each at least ``least``."""
    if type(value) is int and value >= least:
        return value, value
    if type(value) is tuple and len(value) == 2:
        height, width = value
        if type(height) is int and type(width) is int and height >= least and width >= least:
            return value
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) == 1:
        values = values * 2
    try:
        height, width = (index(v) for v in values)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: '{name}' must be an int or a pair of ints, got {shown(value)}") from None
    if height < least or width < least:
        raise ValueError(f"{op}: '{name}' must be at least {least}, got {shown(value)}")
    return height, width


def output(op: str, out: Array | None, shape: tuple[int, ...], like: Array, *inputs: Array | None) -> Array:
    """The array that a kernel writes: ``out`` where it can be written directly, else fresh memory.

    ``inputs`` are the arrays that the kernel still reads while it writes: ``out`` must not overlap them. Elementwise
    kernels pass none that equals ``out`` exactly. Finish with ``return deliver(y, out)``.
    """
    if out is None:
        return empty(shape, like)
    if not isinstance(out, type(like)):
        raise TypeError(
            f"{op}: 'out' must be a {type(like).__name__} on {place(like)} as the input is, got "
            f"{type(out).__name__}{f' on {place(out)}' if hasattr(out, 'shape') else ''}"
        )
    out = plain(op, "out", out)
    if out.shape != shape or out.dtype != like.dtype:
        raise ValueError(f"{op}: 'out' must be {shape} {like.dtype}, got {out.shape} {out.dtype}")
    if not getattr(out.flags, "writeable", True):
        raise ValueError(f"{op}: 'out' is read-only; pass a writable array")
    if contiguous(out) is not out or any(x is not None and overlap(out, x) for x in inputs):
        return empty(shape, like)
    return out


def deliver(y: Array, out: Array | None) -> Array:
    """``y``, copied into ``out`` if the caller gave one and the kernel could not write it directly."""
    if out is None or y is out:
        return y
    with on(y):
        out[...] = y
    return out


def launch(
    op: str,
    out: Array | None,
    shape: tuple[int, ...],
    inputs: Sequence[Any],
    *numbers: float,
    seen: tuple[int, ...] | None = None,
    apart: Sequence[Any] | None = None,
) -> Array:
    """Run the kernel named ``op``, of one output of ``shape``, which the kernel sees as ``seen`` if that is another.

    ``out`` must not overlap the inputs, or only those in ``apart``.
    """
    if out is None:
        there = shape if seen is None else seen
        if type(inputs[0]) is np.ndarray:
            y = getattr(attempt, op)(*inputs, there, *numbers)
        else:
            y = empty(there, inputs[0])
            getattr(backend(op, inputs[0]), op)(*inputs, y, *numbers)
        if y is not None:
            return y if seen is None else y.reshape(shape)
    y = output(op, out, shape, inputs[0], *(inputs if apart is None else apart))
    getattr(backend(op, inputs[0]), op)(*inputs, y if seen is None else y.reshape(seen), *numbers)
    return deliver(y, out)
