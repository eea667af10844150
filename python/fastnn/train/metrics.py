"""What is measured beside the loss, and the running sums. A metric is a function of (outputs, targets), both arrays,
that returns its sum over the batch; the trainer divides by the number of samples. Exact integers where it counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "Metric", "Sums", "accuracy", "resolve", "top5"]

Array = NDArray[Any]
Metric = Callable[[Array, Array], float]


def accuracy(output: Array, target: Array) -> int:
    """How many rows of ``output`` (N, classes) have their largest entry at the target class."""
    labels = labels_of("accuracy", output, target)
    return int((output.argmax(1) == labels).sum())


def top5(output: Array, target: Array) -> int:
    """How many rows of ``output`` (N, classes) have the target class among their five largest entries.

    Of equal entries, those of lower class numbers come first, as for ``accuracy``. A row with NaN counts as wrong.
    """
    labels = labels_of("top5", output, target)
    own = np.take_along_axis(output, labels[:, None], 1)
    ahead = (output > own) | ((output == own) & (np.arange(output.shape[1]) < labels[:, None]))
    return int(((ahead.sum(1) < 5) & ~np.isnan(output).any(1)).sum())


# On a GPU these are counted from the target's place among the outputs: it must be below this (unread.py).
accuracy.within, top5.within = 1, 5  # type: ignore[attr-defined]

METRICS: Mapping[str, Metric] = {"accuracy": accuracy, "top5": top5}


def resolve(metrics: Iterable[str] | Mapping[str, Metric]) -> dict[str, Metric]:
    """Names of this module's metrics, or a mapping of names to functions, as a dict of functions."""
    if isinstance(metrics, Mapping):
        chosen = dict(metrics)
    else:
        chosen = {}
        for name in (metrics,) if isinstance(metrics, str) else metrics:
            if name not in METRICS:
                raise ValueError(
                    f"unknown metric {name!r}; use {', '.join(METRICS)}, or a dict of names to functions of "
                    "(outputs, targets)"
                )
            chosen[name] = METRICS[name]
    if "loss" in chosen:
        raise ValueError("the metric name 'loss' is taken: the loss is always measured")
    return chosen


class Sums:
    """Running sums of the loss (weighted by samples) and of each metric, and the number of samples."""

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = metrics
        self.samples = 0
        self.values: dict[str, float] = dict.fromkeys(("loss", *metrics), 0)

    def add(self, loss: float, output: Array, target: Array) -> None:
        self.add_measured(loss, {name: metric(output, target) for name, metric in self.metrics.items()}, len(target))

    def add_measured(self, loss: float, values: Mapping[str, float], samples: int) -> None:
        self.samples += samples
        self.values["loss"] += loss * samples
        for name, value in values.items():
            self.values[name] += value

    def means(self) -> dict[str, float]:
        return {name: value / self.samples if self.samples else math.nan for name, value in self.values.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.samples, "values": dict(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.samples, self.values = state["samples"], dict(state["values"])


def labels_of(name: str, output: Array, target: Array) -> Array:
    """The class of each row: integer targets as they are, rows of class probabilities by their largest."""
    if target.ndim == 2 and target.shape == output.shape:
        target = target.argmax(1)
    if output.ndim != 2 or target.ndim != 1 or len(output) != len(target) or target.dtype.kind not in "iu":
        raise ValueError(
            f"metric '{name}' needs outputs (N, classes) and integer targets (N,), got {output.shape} and "
            f"{target.dtype} {target.shape}; for other tasks pass Trainer(metrics=())"
        )
    return target
