"""Augmentation: changes to a batch of stored images, new ones each epoch, yet a function of (seed, epoch, index) alone.

So the same sample gets the same change in the same epoch whatever the batch size, the number of workers, or where a
training was resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import philox
from ..kernels._backend import device_of, moved

__all__ = ["Augmentation", "Draw", "RandomCrop", "RandomHorizontalFlip"]

Array = NDArray[Any]


class Draw(NamedTuple):
    """Where a batch's random numbers come from: the loader's seed, the epoch, each sample's index in the dataset, and
    the transform's place among the transforms, so that two of one kind differ."""

    seed: int
    epoch: int
    indices: Array
    place: int

    def words(self) -> NDArray[np.uint32]:
        """Four random 32-bit words per sample: (B, 4)."""
        return philox.blocks(self.indices, self.seed, philox.stream("augment", self.epoch << 8 | self.place))

    def below(self, *limits: int) -> NDArray[np.int64]:
        """For each of up to four limits n, a random integer 0..n-1 per sample: (limits, B)."""
        words = self.words()[:, : len(limits)].T.astype(np.uint64)
        return (words * np.array(limits, np.uint64)[:, None] >> np.uint64(32)).astype(np.int64)


class Augmentation:
    """A transform that draws random numbers: called with the batch (B, C, H, W), as stored, and a :class:`Draw`.

    The batch is an array of the dataset's device, and so is what it returns; the draw's numbers are NumPy's.
    """

    def __call__(self, images: Array, draw: Draw) -> Array:
        raise NotImplementedError


class RandomCrop(Augmentation):
    """Cut a random ``size`` window out of each image, after a border of ``padding`` pixels of value ``fill`` around it.

    ``size`` and ``padding`` are one number or (height, width). As torchvision's, on stored pixels: a border of 0 is
    black. RandomCrop(32, padding=4) is the usual one for CIFAR-10.
    """

    def __init__(self, size: int | Sequence[int], padding: int | Sequence[int] = 0, fill: float = 0) -> None:
        self.size, self.padding, self.fill = _pair("size", size, 1), _pair("padding", padding, 0), fill

    def __call__(self, images: Array, draw: Draw) -> Array:
        B, C, H, W = images.shape
        (h, w), (p, q) = self.size, self.padding
        if h > H + 2 * p or w > W + 2 * q:
            raise ValueError(
                f"RandomCrop: a window of {h}x{w} does not fit into images of {H}x{W} with padding {p}, {q}; pad more"
            )
        corners = draw.below(H + 2 * p - h + 1, W + 2 * q - w + 1)
        gpu = device_of(images)
        if gpu is not None:
            from ..cuda.images import windows

            top, left = moved(corners.astype(np.int32), images)
            return windows(gpu, images, (h, w), top=top, left=left, padding=(p, q), fill=self.fill)
        padded = np.full((B, C, H + 2 * p, W + 2 * q), self.fill, images.dtype)
        padded[:, :, p : p + H, q : q + W] = images
        top, left = corners.tolist()
        crops = np.empty((B, C, h, w), images.dtype)
        for i in range(B):  # one copy per image: a gather with index arrays takes ten times as long
            crops[i] = padded[i, :, top[i] : top[i] + h, left[i] : left[i] + w]
        return crops

    def __repr__(self) -> str:
        return f"RandomCrop({self.size}, padding={self.padding})"


class RandomHorizontalFlip(Augmentation):
    """Mirror each image left to right with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"RandomHorizontalFlip: p must be from 0 to 1, got {p}")
        self.p = p

    def __call__(self, images: Array, draw: Draw) -> Array:
        flip = draw.words()[:, 0] < self.p * 2**32
        gpu = device_of(images)
        if gpu is not None:
            from ..cuda.images import windows

            return windows(gpu, images, images.shape[2:], flip=moved(flip.astype(np.uint8), images))
        flipped = images.copy()
        flipped[flip] = images[flip][..., ::-1]
        return flipped

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


def _pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    a, b = (value, value) if isinstance(value, int) else value
    if not (isinstance(a, int) and isinstance(b, int) and min(a, b) >= least):
        raise ValueError(f"RandomCrop: {name} must be one or two ints of at least {least}, got {value!r}")
    return a, b
