"""What the training loop asks of any loader: a length, its batches from a given one on, and their numbers as arrays.

Next: trainer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels._backend import device_of

__all__ = ["batches", "host_array", "length_of"]


def batches(loader: Any, epoch: int, start: int) -> Iterator[Any]:
    """The batches of an epoch from number ``start`` on."""
    if hasattr(loader, "iterate"):
        own: Iterator[Any] = loader.iterate(epoch, start)
        return own
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    return islice(loader, start, None)


def length_of(name: str, loader: Any) -> int:
    try:
        length = len(loader)
    except TypeError:
        raise TypeError(f"fit: the {name} loader needs a length: pass a DataLoader or a list of batches") from None
    if length == 0:
        raise ValueError(f"the {name} loader is empty: its dataset has no samples, or fewer than one batch")
    return length


def host_array(x: Any) -> NDArray[Any]:
    """The numbers of a Tensor or an array on this machine, whatever its history."""
    x = getattr(x, "array", x)
    return x if isinstance(x, np.ndarray) else np.asarray(x if device_of(x) is None else x.get())
