"""Every op at least once: the largest sample of each record in tests/records, beside PyTorch's op of the same name.

The arrays are small: what these cases time is a call.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from .case import Call, Case, torch

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from records import Record, all_records


def peer(t: Any, record: Record) -> Any:
    """PyTorch's op, found by its name: argument for argument the same by design. Lists of arrays are not in records."""
    name = record.name.split(":")[0]
    if name in ("cat", "stack"):
        return lambda a, b, dim=0: getattr(t, name)([a, b], dim)
    if name == "layer_norm":  # one size is enough for ours, PyTorch takes a sequence
        return lambda x, size, *rest, **kwargs: t.nn.functional.layer_norm(x, x.shape[-1:], *rest, **kwargs)
    return getattr(t.nn.functional, name, None) or getattr(t, name, None)


def single(x: Any) -> Any:
    return x.astype(np.float32) if getattr(x, "dtype", None) == np.float64 else x


def record_case(record: Record) -> Case:
    def make(side: str) -> Call | None:
        samples = record.samples(np.random.default_rng(0))
        sample = max(samples, key=lambda s: sum(getattr(a, "size", 0) for a in s.args))
        args = [single(a) for a in sample.args]
        kwargs = {key: single(a) for key, a in sample.kwargs.items()}
        op: Any = record.op
        if side == "torch" and (t := torch()):
            op = peer(t, record)
            args = [t.from_numpy(a) if isinstance(a, np.ndarray) else a for a in args]
            kwargs = {key: t.from_numpy(a) if isinstance(a, np.ndarray) else a for key, a in kwargs.items()}
        elif side != "fastnn":
            op = None
        return op and (lambda: op(*args, **kwargs))

    return Case("op", record.name, make)


CASES = [record_case(record) for record in all_records()]
