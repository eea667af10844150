"""How shapes become launches: grids, the width of vector access, cuts of what one launch cannot number in 31 bits, and
the multipliers by which kernels divide. Everything here depends on shapes alone, so that results do not on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

__all__ = ["LIMIT", "cut", "divider", "grid", "pieces", "width"]

LIMIT = 2**31  # elements that a launch numbers with an int


@lru_cache(maxsize=4096)
def divider(d: int) -> int:
    """What csrc/cuda/divide.cuh takes to divide numbers below 2^31 by ``d`` (0, of an empty array, stands for 1)."""
    bits = 31 + (max(d, 1) - 1).bit_length()
    return (-(-(2**bits) // max(d, 1))) | bits << 32


def grid(n: int) -> tuple[int, int]:
    """Blocks and threads for a thread each of ``n``: small blocks while there are few, for all multiprocessors."""
    threads = 256 if n >= 65536 else 64
    return -(-n // threads), threads


def width(n: int, *arrays: Any) -> int:
    """How many elements can be moved at once in runs of ``n``: 16 bytes of them, or 1 where they are not aligned."""
    wide = 16 // arrays[0].itemsize
    return wide if n % wide == 0 and all(a is None or a.data.ptr % 16 == 0 for a in arrays) else 1


def pieces(n: int, least: int, unit: int, most: int) -> tuple[int, int]:
    """``n`` cut into at most ``most`` pieces of about ``least`` or more: how many, and how long each but the last is, a
    multiple of ``unit``."""
    count = max(1, min(most, -(-n // least)))
    length = -(-n // (count * unit)) * unit
    return max(1, -(-n // length)) if length else 1, length


def cut(op: str, count: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of ``count`` things of ``size`` elements each that one launch can number."""
    if size >= LIMIT:
        raise ValueError(f"{op}: {size} elements of one image or plane are more than CUDA kernels take, {LIMIT - 1}")
    step = max(1, (LIMIT - 1) // max(size, 1))
    return ((i, min(i + step, count)) for i in range(0, count, step))
