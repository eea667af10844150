"""Pictures, as PNG files; needs the ``viz`` extra (matplotlib), which is imported on use. No display is needed."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..io import write_atomic

__all__ = ["learning_curves", "roofline"]


def learning_curves(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw loss and metrics per epoch, for training and validation, from the history that ``Trainer.fit`` returns.

    >>> learning_curves(trainer.history, "curves.png")
    """
    if not history:
        raise ValueError("learning_curves: the history is empty; train at least one epoch")
    names = list(history[0]["train"])
    figure = _figure("learning_curves", 4.8 * len(names), 3.6)
    from matplotlib.ticker import MaxNLocator

    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for part in ("train", "validation"):
            points = [(record["epoch"], record[part][name]) for record in history if part in record]
            if points:
                axes.plot(*zip(*points), marker="o" if len(points) < 30 else None, markersize=3, label=part)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    _write(figure, path)


def roofline(
    layers: Sequence[Mapping[str, Any]], flops: float, bandwidth: float, path: str | os.PathLike[str], title: str = ""
) -> None:
    """Draw layers under this machine's limits: operations a second over operations per byte, both logarithmic.

    ``layers``: what ``fastnn bench --json`` lists, with "layer", "pass", "intensity" and "speed". ``flops`` and
    ``bandwidth``: the peaks, in operations and bytes a second. Source: Williams, Waterman, Patterson (2009).
    """
    points = [layer for layer in layers if layer["speed"] > 0]
    if not points:
        raise ValueError("roofline: no layer computes anything")
    figure = _figure("roofline", 7.2, 4.8)
    axes = figure.subplots()
    ridge = flops / bandwidth
    least = min(ridge, *(p["intensity"] for p in points)) / 2
    most = max(ridge, *(p["intensity"] for p in points)) * 2
    axes.loglog([least, ridge, most], [least * bandwidth / 1e9, flops / 1e9, flops / 1e9], color="black")
    for which, marker in (("forward", "o"), ("backward", "s")):
        some = [p for p in points if p["pass"] == which]
        if some:
            axes.plot([p["intensity"] for p in some], [p["speed"] / 1e9 for p in some], marker, label=which)
    for p in points:
        beside = (3, 3) if p["pass"] == "forward" else (3, -8)
        axes.annotate(p["layer"], (p["intensity"], p["speed"] / 1e9), beside, textcoords="offset points", fontsize=7)
    axes.set_xlabel("operations per byte")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    _write(figure, path)


def _figure(op: str, width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(f"{op} needs matplotlib: pip install 'fastnn-kernels[viz]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Any, path: str | os.PathLike[str]) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(path, picture.getvalue())
