"""Random numbers as a function of (seed, stream, index), and dropout: csrc/cpu/random.cpp says how they are made.

``seed`` and ``stream`` are any ints, taken modulo 2**64; ``fastnn.random.next_stream()`` gives fresh ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from ._backend import Array, backend, empty, here
from ._check import deliver, float_dtype, floats, integer, output, real, sizes

__all__ = ["dropout", "normal", "random_bits", "uniform"]


def _signed(op: str, name: str, number: int) -> int:
    """An int modulo 2**64 as the int64 of the same bits."""
    return ((integer(op, name, number) + 2**63) % 2**64) - 2**63


def _fill(
    op: str,
    shape: Sequence[int],
    first: float,
    second: float,
    seed: int,
    stream: int,
    dtype: Any,
    device: str | None,
    out: Array | None,
) -> Array:
    y = output(op, out, sizes(op, "shape", shape), empty((0,), here(op, device), float_dtype(op, dtype)))
    getattr(backend(op, y), op)(y, first, second, _signed(op, "seed", seed), _signed(op, "stream", stream))
    return deliver(y, out)


def random_bits(n: int, seed: int, stream: int = 0, *, device: str | None = None, out: Array | None = None) -> Array:
    """The first ``n`` 32-bit words of a stream, as uint32."""
    op = "random_bits"
    y = output(op, out, (integer(op, "n", n, least=0),), empty((0,), here(op, device), np.uint32))
    backend(op, y).random_bits(y.view(np.int32), _signed(op, "seed", seed), _signed(op, "stream", stream))
    return deliver(y, out)


def uniform(
    shape: Sequence[int],
    low: float = 0.0,
    high: float = 1.0,
    *,
    seed: int,
    stream: int,
    dtype: Any = np.float32,
    device: str | None = None,
    out: Array | None = None,
) -> Array:
    """Numbers uniform in [low, high): multiples of 2**-24 (float32) or 2**-53 (float64) of its width."""
    low, high = real("uniform", "low", low), real("uniform", "high", high)
    if not (low <= high and isfinite(high - low)):
        raise ValueError(f"uniform: low must not exceed high, and both be finite, got {low} and {high}")
    return _fill("uniform", shape, low, high, seed, stream, dtype, device, out)


def normal(
    shape: Sequence[int],
    mean: float = 0.0,
    std: float = 1.0,
    *,
    seed: int,
    stream: int,
    dtype: Any = np.float32,
    device: str | None = None,
    out: Array | None = None,
) -> Array:
    """Normal numbers of the given mean and standard deviation, by Box and Muller's transform in float64."""
    mean, std = real("normal", "mean", mean), real("normal", "std", std)
    if not std >= 0:
        raise ValueError(f"normal: std must not be negative, got {std}")
    return _fill("normal", shape, mean, std, seed, stream, dtype, device, out)


def dropout(x: Array, p: float, seed: int, stream: int, group: int = 1, *, out: Array | None = None) -> Array:
    """``x / (1 - p)``, with each ``group`` of neighbours set to 0 with probability ``p``; its own gradient.

    Called with the gradient and the same seed and stream it gives the gradient: the mask is made again, not kept.
    """
    p, group = real("dropout", "p", p), integer("dropout", "group", group)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be in [0, 1], got {p}")
    (x,) = floats("dropout", x=x)
    if group < 1 or x.size % group:
        raise ValueError(f"dropout: {x.size} elements do not make whole groups of {group}")
    y = output("dropout", out, x.shape, x, *(() if out is x else (x,)))
    backend("dropout", x).dropout(
        x, y, p, _signed("dropout", "seed", seed), _signed("dropout", "stream", stream), group
    )
    return deliver(y, out)
