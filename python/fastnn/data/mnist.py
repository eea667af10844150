"""MNIST and FashionMNIST: IDX files where torchvision's users have them, or from the network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from .dataset import ArrayDataset, check_labels
from .download import Remote, fetch
from .files import data_root, read_idx

__all__ = ["MNIST", "FashionMNIST"]


class MNIST(ArrayDataset):
    """Handwritten digits: 60,000 images to train on, 10,000 to test on, of shape (1, 28, 28), uint8.

    ``root`` is the directory of datasets (default: $FASTNN_DATA, else fastnn in the user's cache directory). The files
    are looked for in root/MNIST/raw, as torchvision lays them out, and in ``root`` itself if you gave one, as
    train-images-idx3-ubyte.gz or unpacked; how many images there are is what the files say. What is missing is
    downloaded if ``download``. ``images`` are the pixels (N, 1, 28, 28), ``labels`` (N,) int64; items and DataLoaders
    give float32, normalised by the training images' mean 0.1307 and standard deviation 0.3081.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (1998), licence CC BY-SA 3.0.

    >>> loader = DataLoader(MNIST("data"), batch_size=64, shuffle=True)
    """

    mirrors: ClassVar[Sequence[str]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    # SHA-256 as TensorFlow Datasets publishes them; those of the test files were also taken from the files themselves.
    files: ClassVar[dict[str, Remote]] = {
        "train-images": Remote(
            "train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels": Remote(
            "train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images": Remote(
            "t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels": Remote(
            "t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    }
    folder: ClassVar[str] = "MNIST/raw"
    names: ClassVar[Sequence[str]] = tuple("0123456789")
    normalisation: ClassVar[tuple[float, float]] = (0.1307, 0.3081)

    def __init__(self, root: str | os.PathLike[str] | None = None, train: bool = True, download: bool = True) -> None:
        part = "train" if train else "t10k"
        images_path, labels_path = (self._find(f"{part}-{kind}", root, download) for kind in ("images", "labels"))
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if images.shape[1:] != (28, 28):
            raise ValueError(f"{images_path}: its images are {images.shape[1]}x{images.shape[2]}, expected 28x28")
        if len(images) != len(labels):
            raise ValueError(
                f"{images_path} holds {len(images)} images but {labels_path} {len(labels)} labels; "
                f"they are not of the same set: delete the wrong one and fetch it again"
            )
        check_labels(str(labels_path), labels, len(self.names))
        super().__init__(images[:, None], labels.astype(np.int64), *self.normalisation, self.names)

    @classmethod
    def _find(cls, what: str, root: str | os.PathLike[str] | None, download: bool) -> Path:
        remote = cls.files[what]
        top = data_root(root)
        # The cache's top is shared by all datasets; a directory that the user names may hold the files of this one.
        for folder in [top / cls.folder] if root is None else [top / cls.folder, top]:
            for path in (folder / remote.name, folder / remote.name[:-3]):
                if path.is_file():
                    cls._not_of_another(what, path)
                    return path
        if not download:
            raise FileNotFoundError(
                f"{cls.__name__}: {remote.name} is neither in {top / cls.folder} nor in {top}; "
                f"name the directory that holds it (root=, --data-dir or FASTNN_DATA), or allow download=True"
            )
        return fetch(remote, cls.mirrors, top / cls.folder)

    @classmethod
    def _not_of_another(cls, what: str, path: Path) -> None:
        """Raise if the file is that of the other dataset: their files have the same names, but not the same sizes."""
        for other in (MNIST, FashionMNIST):
            if other.files[what].size == path.stat().st_size != cls.files[what].size:
                raise ValueError(
                    f"{path}: this is {other.__name__}'s file, not {cls.__name__}'s; "
                    f"put {cls.__name__}'s into {cls.folder} of the data directory"
                )


class FashionMNIST(MNIST):
    """Articles of clothing in ten classes: 60,000 images to train on, 10,000 to test on, of shape (1, 28, 28), uint8.

    As :class:`MNIST`, in root/FashionMNIST/raw; mean 0.2860 and standard deviation 0.3530.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST" (2017), arXiv:1708.07747, licence MIT.
    """

    mirrors: ClassVar[Sequence[str]] = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    )
    # SHA-256 as TensorFlow Datasets publishes them.
    files: ClassVar[dict[str, Remote]] = {
        "train-images": Remote(
            "train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels": Remote(
            "train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images": Remote(
            "t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels": Remote(
            "t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    }
    folder: ClassVar[str] = "FashionMNIST/raw"
    names: ClassVar[Sequence[str]] = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    normalisation: ClassVar[tuple[float, float]] = (0.2860, 0.3530)
