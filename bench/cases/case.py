"""What a case is, and what cases are written with: arrays, and the peer. The cases themselves: the other files here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fastnn import _core

SIDES = ("fastnn", "numpy", "torch")
Call = Callable[[], Any]
Calls = Call | dict[str, Call]  # one way to do it, or several by name, of which the fastest counts


@dataclass(frozen=True)
class Case:
    """``make(side)`` gives the function to time, several to choose from, or None where a side has no such thing.

    ``flops`` and ``bytes`` are what one call must compute and move (each array read or written once), where that is
    meant; 0 where it is not.
    """

    group: str
    name: str
    make: Callable[[str], Calls | None]
    flops: float = 0.0
    bytes: float = 0.0
    dtype: str = "float32"

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name}"

    def ways(self, side: str) -> dict[str, Call]:
        """The calls of a side by name; empty where it has none."""
        made = self.make(side)
        return made if isinstance(made, dict) else {"": made} if made else {}


def torch() -> Any:
    """The peer, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


@cache
def _numbers(dtype: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(1 << 20).astype(dtype)


def arrays(shapes: Sequence[tuple[int, ...]], dtype: str = "float32") -> list[np.ndarray]:
    """Normal random numbers, on aligned memory for every side: PyTorch's own tensors are aligned too."""
    made = []
    for i, shape in enumerate(shapes):
        x = _core.empty(tuple(shape), np.dtype(dtype))
        x.reshape(-1)[:] = np.resize(np.roll(_numbers(dtype), i * 7919), x.size)
        made.append(x)
    return made


def compare(
    group: str,
    name: str,
    shapes: Sequence[tuple[int, ...]],
    ours: Callable[..., Calls],
    theirs: Callable[..., Calls] | None = None,
    numpy: Callable[..., Calls] | None = None,
    **about: Any,
) -> Case:
    """A case on random arrays of these shapes: ``ours(*arrays)``, ``numpy(*arrays)``, ``theirs(torch, *tensors)``."""
    dtype = about.get("dtype", "float32")

    def make(side: str) -> Calls | None:
        if side == "fastnn":
            return ours(*arrays(shapes, dtype))
        if side == "numpy":
            return numpy(*arrays(shapes, dtype)) if numpy else None
        t = torch()
        return theirs(t, *map(t.from_numpy, arrays(shapes, dtype))) if theirs and t else None

    return Case(group, name, make, **about)


def layouts(t: Any, make: Callable[..., Call], *tensors: Any) -> dict[str, Call]:
    """``make(*tensors)`` in PyTorch's two memory formats: convolutions and pools may be faster in channels_last."""
    last = [x.contiguous(memory_format=t.channels_last) if x.ndim == 4 else x for x in tensors]
    return {"contiguous": make(*tensors), "channels_last": make(*last)}
