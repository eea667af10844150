"""Losses and metrics of batches on a GPU, left there until somebody looks: reading one waits for all that was launched.

The numbers are those that would have been read batch by batch. Next: trainer.py, metrics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..kernels._backend import device_of, namespace, on
from ..kernels._check import contiguous

__all__ = ["Batch", "Unread"]


class Batch(NamedTuple):
    """What was measured of one batch; ``step`` is the number that it was given."""

    step: int
    loss: float
    values: dict[str, float]
    samples: int


class Unread:
    """``add`` keeps a batch's loss, and where its targets stand among its outputs, on their device; ``read`` brings all
    of them to this machine in two transfers and forgets them. Metrics without a ``within`` (users' own) are computed
    here at once, of NumPy arrays.
    """

    def __init__(self, metrics: Mapping[str, Callable[..., float]]) -> None:
        self._metrics = metrics
        self._ranked = any(hasattr(metric, "within") for metric in metrics.values())
        self._batches: list[tuple[int, Any, Any, dict[str, float], int]] = []

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, step: int, loss: Any, output: Any, target: Any) -> None:
        place = None
        if self._ranked:
            from ..cuda.images import place_of_target
            from .metrics import labels_of

            with on(target):
                labels = labels_of("accuracy", output, target).astype(np.int64, copy=False)
            place = place_of_target(device_of(output), contiguous(output), contiguous(labels))  # type: ignore[arg-type]
        own = {name: m for name, m in self._metrics.items() if not hasattr(m, "within")}
        values = {}
        if own:
            seen = output.get(), target.get()
            values = {name: metric(*seen) for name, metric in own.items()}
        self._batches.append((step, loss, place, values, len(target)))

    def read(self) -> Iterator[Batch]:
        batches, self._batches = self._batches, []
        if not batches:
            return
        xp = namespace(batches[0][1])
        losses = xp.concatenate([loss.reshape(1) for _, loss, *_ in batches]).get().tolist()
        places = xp.concatenate([place for _, _, place, *_ in batches]).get() if self._ranked else None
        start = 0
        for (step, _, _, values, samples), loss in zip(batches, losses):
            end = start + samples
            for name, metric in self._metrics.items():
                if places is not None and hasattr(metric, "within"):
                    values[name] = int((places[start:end] < metric.within).sum())
            start = end
            yield Batch(step, loss, {name: values[name] for name in self._metrics}, samples)
