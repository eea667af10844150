"""Philox4x32-10 in NumPy: random words as a pure function of (seed, stream, index), the reference for the C++ and CUDA
kernels. Nothing here has a state: any part of any sequence can be made alone, in any order, on any device.

The convention, the same everywhere: key = (seed low, seed high); counter = (index low, index high, stream low, stream
high), each half 32 bits; one block (seed, stream, index) gives four 32-bit words.
"""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["blocks", "permutation", "stream", "words"]

_PURPOSES = {"shuffle": 1, "split": 2, "augment": 3}


def stream(purpose: str, number: int = 0) -> int:
    """A stream that no other purpose shares: its high half names the purpose, its low half is ``number`` (an epoch)."""
    return _PURPOSES[purpose] << 56 | as_int(number) & (1 << 56) - 1


def blocks(index: NDArray[Any], seed: int, stream: int = 0) -> NDArray[np.uint32]:
    """Four random 32-bit words for each index: shape ``index.shape + (4,)``.

    ``seed`` and ``stream`` are taken modulo 2**64. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as
    easy as 1, 2, 3" (2011).
    """
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    counter = np.asarray(index).astype(np.uint64)
    # Each 32-bit number sits in 64 bits, so that a product's two halves come from one multiplication.
    a, b = counter & low, counter >> half
    c = np.full_like(a, stream & 0xFFFFFFFF)
    d = np.full_like(a, stream >> 32 & 0xFFFFFFFF)
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (q >> half) ^ b ^ np.uint64(key0), q & low, (p >> half) ^ d ^ np.uint64(key1), p & low
        key0, key1 = key0 + 0x9E3779B9 & 0xFFFFFFFF, key1 + 0xBB67AE85 & 0xFFFFFFFF
    return np.stack([a, b, c, d], axis=-1).astype(np.uint32)


def words(n: int, seed: int, stream: int = 0) -> NDArray[np.uint32]:
    """The first ``n`` words of a stream: word i is word i % 4 of block i // 4."""
    return blocks(np.arange(-(-n // 4)), seed, stream).reshape(-1)[:n]


def permutation(n: int, seed: int, stream: int = 0) -> NDArray[np.int64]:
    """A random order of 0..n-1, the same for every NumPy version: a stable sort of one 64-bit random number each."""
    pairs = words(2 * n, seed, stream).astype(np.uint64)
    return np.argsort(pairs[0::2] << np.uint64(32) | pairs[1::2], kind="stable").astype(np.int64)
