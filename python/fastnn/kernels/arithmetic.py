"""NumPy's arithmetic on our kernels: float arrays that lie contiguously, broadcast as NumPy does, on all threads, into
memory that is reused. Every bit is NumPy's. What does not fit, NumPy computes (functional/arithmetic.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._backend import Array, attempt

__all__: list[str] = []

_BINARY = {np.add: attempt.add, np.subtract: attempt.subtract, np.multiply: attempt.multiply, np.divide: attempt.divide}
_UNARY = {np.negative: attempt.negative, np.absolute: attempt.absolute, np.sqrt: attempt.square_root}


def quick(function: Any, a: Any, b: Any = None) -> Array | None:
    """``function(a)`` or ``function(a, b)`` of NumPy arrays; None where no kernel of ours can do it."""
    if b is None:
        kernel = _UNARY.get(function)
        return None if kernel is None else kernel(a)
    kernel = _BINARY.get(function)
    if kernel is None:
        return None
    shape = a.shape
    return kernel(a, b, shape if b.shape == shape else np.broadcast(a, b).shape)
