"""One record per op drives its tests (tests/test_ops.py) and its bench (bench/): sample inputs and a reference.

A record's reference is plain float64 NumPy that follows the definition, not our code. Each file of this folder holds
the records of one room in a list ``RECORDS``. Samples cover odd sizes around vector and tile edges, every argument,
and an empty batch; strided inputs, NaN, dtypes, threads and gradients are made from them by the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One call of an op: ``op(*args, **kwargs)``. Float64 arrays are cast to the dtype under test."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = [a.shape if isinstance(a, np.ndarray) else a for a in self.args]
        return f"{shapes} {self.kwargs}"


@dataclass(frozen=True)
class Record:
    """An op, how to call it, and what it must give."""

    name: str
    op: Callable[..., Any]  # a function of fastnn.functional, or of fastnn.kernels where there is no gradient
    samples: Callable[[np.random.Generator], list[Sample]]
    reference: Callable[..., Any]  # float64 arrays in, the expected result (or tuple of results) out
    differentiable: tuple[int, ...] = (0,)  # which positional arguments have gradients
    tolerance: float = 8.0  # allowed error, in float epsilons times the scale of the result
    nan: bool = True  # whether a NaN in the first argument must reach the output as in the reference
    random: bool = False  # the result is random: only dtype, shape and repeatability are compared


def all_records() -> list[Record]:
    folder = Path(__file__).parent
    rooms = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return [record for room in rooms for record in import_module(f"records.{room}").RECORDS]


def randn(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def distinct(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Values that differ pairwise by 0.01 and stay 0.003 away from 0: no kink or tie within a difference's reach."""
    size = int(np.prod(shape))
    values = (np.arange(size) - size // 2) * 0.01 + 0.003
    return rng.permutation(values).reshape(shape)
