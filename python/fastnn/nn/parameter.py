"""Parameter, and the memory that layers start from."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..kernels._backend import Array, empty, here

__all__ = ["Parameter"]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Parameter(Tensor):
    """A Tensor that a Module finds by itself when it is assigned to an attribute: what an optimizer trains.

    ``data`` is a Tensor or a floating-point array; its memory is shared, not copied.
    """

    __slots__ = ()

    def __init__(self, data: Tensor | Array, requires_grad: bool = True) -> None:
        if isinstance(data, Tensor):
            super().__init__(data.array, requires_grad)
        elif hasattr(data, "dtype") and hasattr(data, "shape"):
            super().__init__(np.asarray(data) if isinstance(data, np.generic) else data, requires_grad)
        else:
            raise TypeError(
                f"Parameter: expected a Tensor or an array, got {type(data).__name__}; use fastnn.tensor(...)"
            )

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


def float_dtype(op: str, dtype: Any) -> np.dtype[Any]:
    """``dtype`` (None means float32) if kernels work on it."""
    found = np.dtype(np.float32 if dtype is None else dtype)
    if found not in _FLOATS:
        raise TypeError(f"{op}: dtype must be float32 or float64, got {found}")
    return found


def blank(op: str, *shape: int, dtype: Any = None, device: str | None = None) -> Tensor:
    """An uninitialised tensor for ``op`` to fill."""
    return Tensor(empty(shape, here(op, device), float_dtype(op, dtype)))


def whole(op: str, name: str, value: Any, least: int = 0) -> int:
    """``value`` as an int of at least ``least``."""
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{op}: '{name}' must be an int, got {value!r}") from None
    if number < least:
        raise ValueError(f"{op}: '{name}' must be at least {least}, got {number}")
    return number


def pair(op: str, name: str, value: Any, least: int = 0) -> tuple[int, int]:
    """An int, or two of them (height, width), each at least ``least``."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{op}: '{name}' must be an int or a pair of ints, got {value!r}")
    return whole(op, name, values[0], least), whole(op, name, values[1], least)
