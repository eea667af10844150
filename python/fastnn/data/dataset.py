"""Datasets that are arrays in memory, and parts of them. What a DataLoader needs of a dataset is `__len__` and either
`gather` and `normalize` (whole batches: fast) or `__getitem__` (one sample: anything else).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import philox
from ..kernels._backend import here, moved, on

__all__ = ["ArrayDataset", "Subset", "random_split"]

Array = NDArray[Any]


class Dataset(Protocol):
    """Anything with a length whose items are (image, label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Gathers(Protocol):
    """A dataset that hands out whole batches."""

    def __len__(self) -> int: ...

    def gather(self, indices: Array) -> tuple[Array, Array]: ...

    def normalize(self, images: Array) -> Array: ...


class ArrayDataset:
    """Images (N, C, H, W) and labels (N,) in memory; also (N, features), or any other shape that starts with N.

    An item is (image, label): the image float32, ``(x / 255 - mean) / std`` for uint8 pixels and ``(x - mean) / std``
    for floats, with ``mean`` and ``std`` one number or one per channel (none: no centring, no scaling beyond the 255).
    ``images`` stays as it was given. Integer labels become int64; other targets are handed out as they are. ``classes``
    names the labels, which then must be below its length.
    """

    def __init__(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        name = type(self).__name__
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype not in (np.uint8, np.float32, np.float64):
            raise TypeError(f"{name}: images must be uint8, float32 or float64, got {images.dtype}")
        if images.ndim < 1 or labels.ndim < 1:
            raise ValueError(f"{name}: images and labels must start with N, got {images.shape} and {labels.shape}")
        if len(images) != len(labels):
            raise ValueError(
                f"{name}: {len(images)} images but {len(labels)} labels; there must be one label per image"
            )
        if labels.dtype.kind in "iu":
            labels = labels.astype(np.int64)
        self.images, self.labels = images, labels
        self.classes = tuple(classes) if classes is not None else None
        if self.classes is not None:
            check_labels(name, labels, len(self.classes))
        self.mean, self.std = mean, std
        scale = 255.0 if images.dtype == np.uint8 else 1.0
        mu, sigma = self._per_channel("mean", mean, 0.0), self._per_channel("std", std, 1.0)
        if not (sigma > 0).all():
            raise ValueError(f"{name}: std must be positive, got {std}")
        # One multiplication and one addition per pixel, the constants rounded once, from float64.
        self._scale = np.asarray(1 / (scale * sigma), np.float32)
        self._shift = np.asarray(-mu / sigma, np.float32)

    def _per_channel(self, what: str, value: float | Sequence[float] | None, default: float) -> Array:
        numbers = np.asarray(default if value is None else value, np.float64)
        if numbers.size == 1:
            return numbers.reshape(())
        channels = self.images.shape[1] if self.images.ndim > 1 else 0
        if numbers.shape != (channels,):
            raise ValueError(
                f"{type(self).__name__}: {what} must be one number or {channels}, one per channel of images "
                f"{self.images.shape}, got {value}"
            )
        return numbers.reshape(-1, *[1] * (self.images.ndim - 2))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        return self.normalize(self.images[index]), self.labels[index]

    def to(self, device: str) -> ArrayDataset:
        """The same data on another device, where batches are then made: ``training.to("cuda")``."""
        like, other = here("to", device), copy(self)
        for name in ("images", "labels", "_scale", "_shift"):
            setattr(other, name, moved(getattr(self, name), like))
        return other

    def gather(self, indices: Array) -> tuple[Array, Array]:
        """The images (as stored) and the labels at these indices (NumPy's), as fresh arrays."""
        indices = moved(indices, self.images)
        with on(self.images):
            return self.images.take(indices, axis=0), self.labels.take(indices, axis=0)

    def normalize(self, images: Array) -> Array:
        """Stored images as the float32 numbers that a network gets."""
        with on(images):
            y: Array = np.multiply(images, self._scale, dtype=np.float32, casting="same_kind")
            return np.add(y, self._shift, out=y)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images {self.images.shape[1:]} {self.images.dtype})"


def check_labels(name: str, labels: Array, classes: int) -> None:
    """Raise unless all labels are in 0..classes-1; says which is not."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        at = int(wrong[0])
        raise ValueError(f"{name}: label {at} is {labels[at]}, outside 0..{classes - 1} ({wrong.size} such labels)")


class Subset:
    """The samples of ``dataset`` at ``indices``, in that order."""

    def __init__(self, dataset: Dataset, indices: Sequence[int] | Array) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, np.int64).reshape(-1)
        n = len(dataset)
        if self.indices.size and not (-n <= self.indices.min() and self.indices.max() < n):
            raise IndexError(f"Subset: indices {self.indices.min()}..{self.indices.max()} of a dataset of {n}")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def to(self, device: str) -> Subset:
        """The same samples of the dataset on another device."""
        return Subset(self.dataset.to(device), self.indices)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        # A part of a dataset that gathers does too; classes, mean and std are its dataset's.
        if name == "gather":
            gather = self.dataset.gather  # type: ignore[attr-defined]
            return lambda indices: gather(self.indices[indices])
        if name in ("normalize", "classes", "mean", "std"):
            return getattr(self.dataset, name)
        raise AttributeError(f"'Subset' has no attribute '{name}'")


def random_split(dataset: Dataset, lengths: Sequence[int | float], seed: int = 0) -> list[Subset]:
    """Cut a dataset at random into parts of these lengths, or of these fractions where they add up to 1.

    The parts depend on ``seed`` and the dataset's length alone. What fractions leave over goes to the first parts.

    >>> train, validation = random_split(digits(), [0.9, 0.1])
    """
    n = len(dataset)
    if lengths and all(isinstance(x, float) for x in lengths) and abs(sum(lengths) - 1) < 1e-9:
        sizes = [int(n * x) for x in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(x) for x in lengths]
        if sum(sizes) != n or min(sizes, default=0) < 0 or any(x != int(x) for x in lengths):
            raise ValueError(
                f"random_split: lengths {list(lengths)} must add up to the dataset's {n}, or be fractions of 1"
            )
    order = philox.permutation(n, seed, philox.stream("split"))
    ends = np.cumsum([0, *sizes])
    return [Subset(dataset, order[a:b]) for a, b in pairwise(ends)]
