"""This machine's limits, measured: multiply-adds a second and bytes a second. For benches and ``fastnn bench``, no op.

Not imported by ``fastnn.kernels``: ``from fastnn.kernels.peak import fma_peak, memory_peak``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .. import _core

__all__ = ["fma_peak", "fma_speeds", "memory_peak"]

GRAIN = 32768  # elements a chunk in csrc/cpu/simd.h: one sum each


def fma_speeds(threads: int = 1, dtype: Any = "float32", seconds: float = 1e-3, tries: int = 5) -> list[float]:
    """Floating-point operations a second, two for each multiply-add, in some tries of about ``seconds`` each.

    ``threads`` is 1, or the number of the pool's threads.
    """
    chunks = 1 if threads == 1 else 8 * threads  # several each: a thread that comes late does not spoil it
    y, flops = np.empty(chunks, dtype), np.empty(1)
    turns, speeds = 1000, []
    for _ in range(tries + 2):  # the first two find out how many turns take so long
        start = time.perf_counter()
        _core.kernels.peak_fma(y, flops, turns)
        taken = time.perf_counter() - start
        speeds.append(float(flops[0]) / taken)
        turns = min(max(100, int(turns * seconds / taken)), 10**8 // chunks)
    return speeds[2:]


def fma_peak(threads: int = 1, dtype: Any = "float32", seconds: float = 1e-3, tries: int = 5) -> float:
    """The best of ``fma_speeds``."""
    return max(fma_speeds(threads, dtype, seconds, tries))


def memory_peak(size: int = 1 << 26, tries: int = 5) -> dict[str, float]:
    """Bytes a second on all threads, by "read", "copy" and "triad", of arrays of ``size`` bytes, beyond the caches.

    Counted are the bytes that the task names: x is read; y = x; y = x + factor * z. The best of plain and streaming
    stores.
    """
    count = max(1, size // 4)
    x, z = (np.ones(count, np.float32) for _ in range(2))
    y = _core.empty((count,), x.dtype)  # aligned, as streaming stores need it
    sums = np.empty(-(-count // GRAIN), np.float32)
    tasks: dict[str, tuple[int, list[Any]]] = {
        "read": (1, [lambda: _core.kernels.peak_read(x, sums)]),
        "copy": (2, [lambda s=s: _core.kernels.peak_triad(x, None, y, 0.0, s) for s in (False, True)]),
        "triad": (3, [lambda s=s: _core.kernels.peak_triad(x, z, y, 3.0, s) for s in (False, True)]),
    }
    found = {}
    for name, (streams, ways) in tasks.items():
        best = float("inf")
        for way in ways * tries:
            start = time.perf_counter()
            way()
            best = min(best, time.perf_counter() - start)
        found[name] = streams * 4 * count / best
    return found
