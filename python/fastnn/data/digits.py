"""The embedded dataset: 1,797 real handwritten digits, so that training needs neither network nor files.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998),
https://doi.org/10.24432/C50P49, licence CC BY 4.0. These are the 1,797 digits of that collection's test part (by 13
writers), as scikit-learn ships them too: 8x8 pixels, each the count 0..16 of inked dots in a 4x4 block of the scan.
Here they are packed as two IDX files, unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import ArrayDataset
from .files import read_idx

__all__ = ["digits"]


def digits(train: bool = True, size: int = 8) -> ArrayDataset:
    """The UCI handwritten digits: 1,442 images to train on, 355 to test on, of shape (1, size, size), uint8.

    Of each digit, every fifth image in the collection's order is for testing: a fixed split with all classes in their
    proportions. The 13 writers appear in both parts, so the test accuracy is that for *known* writers; for unknown ones
    expect two or three points less. ``size`` 8 gives the original images, their 0..16 stretched to 0..255. Larger ones
    have a margin around the digit, as MNIST's do: 28 holds it in the central 24x24, each old pixel as 3x3 new ones.
    mean and std are those of the training part at that size.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49, CC BY 4.0.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not (size == 8 or 12 <= size <= 1024):
        raise ValueError(f"digits: size must be 8 or from 12 to 1024, got {size!r}")
    here = Path(__file__).parent
    images = read_idx(here / "digits-images-idx3-ubyte.gz", 3)
    labels = read_idx(here / "digits-labels-idx1-ubyte.gz", 1).astype(np.int64)
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[4::5]] = True
    training = _scaled(images[~test], int(size))
    return ArrayDataset(
        training if train else _scaled(images[test], int(size)),
        labels[~test] if train else labels[test],
        mean=float(training.mean()) / 255,
        std=float(training.std()) / 255,
        classes=[str(digit) for digit in range(10)],
    )


def _scaled(images: NDArray[np.uint8], size: int) -> NDArray[Any]:
    """8x8 images of 0..16 -> (N, 1, size, size) of 0..255: bilinear, with blank paper around the digit.

    Every weight is an integer over 2 * box and float64 holds all sums exactly, so the bits are the same everywhere.
    """
    box = 8 if size == 8 else size * 6 // 7
    centre = (2 * (np.arange(size) - (size - box) // 2) + 1) * 8 - box  # of each new pixel, in old pixels * 2 * box
    weight = np.maximum(0, 2 * box - np.abs(centre[:, None] - 2 * box * np.arange(8))).astype(np.float64)
    sums = weight @ images.astype(np.float64) @ weight.T
    pixels: NDArray[Any] = np.floor(sums * 255 / (16 * (2 * box) ** 2) + 0.5).astype(np.uint8)
    return pixels[:, None]
