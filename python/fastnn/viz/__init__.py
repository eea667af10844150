"""Pictures, as PNG files; needs the ``viz`` extra (matplotlib), which is imported on use. No display is needed."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..io import write_atomic

__all__ = ["learning_curves"]


def learning_curves(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw loss and metrics per epoch, for training and validation, from the history that ``Trainer.fit`` returns.

    >>> learning_curves(trainer.history, "curves.png")
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise ImportError("learning_curves needs matplotlib: pip install 'fastnn-kernels[viz]'") from None
    if not history:
        raise ValueError("learning_curves: the history is empty; train at least one epoch")
    names = list(history[0]["train"])
    figure = Figure(figsize=(4.8 * len(names), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
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
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(path, picture.getvalue())
