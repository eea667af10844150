"""The source of random numbers: a seed and a count of the streams drawn so far.

Every random op takes a stream of its own, and number ``index`` of stream ``stream`` is a function of (seed, stream,
index) alone (Philox, Salmon et al. 2011): the same on any number of threads, on CPU and GPU. Saving two integers saves
the generator.
"""

from __future__ import annotations

from .kernels._check import integer

__all__ = ["get_rng_state", "initial_seed", "manual_seed", "next_stream", "set_rng_state"]


class _Source:
    seed = 0
    stream = 0


def manual_seed(seed: int) -> None:
    """Start again from ``seed`` (any int; taken modulo 2**64)."""
    _Source.seed, _Source.stream = integer("manual_seed", "seed", seed) % 2**64, 0


def initial_seed() -> int:
    """The seed last given to ``manual_seed``."""
    return _Source.seed


def next_stream() -> tuple[int, int]:
    """(seed, stream) for one random op; the next call gives the next stream."""
    stream = _Source.stream
    _Source.stream += 1
    return _Source.seed, stream


def get_rng_state() -> tuple[int, int]:
    """(seed, streams drawn): all there is to save."""
    return _Source.seed, _Source.stream


def set_rng_state(state: tuple[int, int]) -> None:
    """Continue from what ``get_rng_state`` gave."""
    _Source.seed, _Source.stream = int(state[0]) % 2**64, int(state[1])
