"""CIFAR-10 from its binary version: the Python version is pickles, which run code when they are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..io import atomic
from .dataset import ArrayDataset, check_labels
from .download import Remote, fetch, offline
from .files import data_root, read_cifar

__all__ = ["CIFAR10"]

_FOLDER = "cifar-10-batches-bin"
_BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


class CIFAR10(ArrayDataset):
    """Photographs in ten classes: 50,000 images to train on, 10,000 to test on, of shape (3, 32, 32), uint8.

    ``root`` is the directory of datasets (default: $FASTNN_DATA, else fastnn in the user's cache directory). Read are
    the binary version's data_batch_1.bin ... test_batch.bin, in root/cifar-10-batches-bin or in ``root`` itself if you
    gave one; how many images there are is what the files say. If they are missing, root/cifar-10-binary.tar.gz is
    unpacked, or downloaded first if ``download`` (170 MB). An item and a DataLoader give float32, normalised by the
    training images' mean (0.4914, 0.4822, 0.4465) and standard deviation (0.2470, 0.2435, 0.2616).

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
    """

    mirrors: ClassVar[Sequence[str]] = (
        "https://www.cs.toronto.edu/~kriz/",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
    )
    # SHA-256 as TensorFlow Datasets publishes it.
    archive: ClassVar[Remote] = Remote(
        "cifar-10-binary.tar.gz", 170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    )
    names: ClassVar[Sequence[str]] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip

    def __init__(self, root: str | os.PathLike[str] | None = None, train: bool = True, download: bool = True) -> None:
        paths = self._find(root, _BATCHES[:5] if train else _BATCHES[5:], download)
        parts = []
        for path in paths:
            records = read_cifar(path)
            check_labels(str(path), records[:, 0], len(self.names))
            parts.append(records)
        images = np.empty((sum(map(len, parts)), 3, 32, 32), np.uint8)
        labels = np.empty(len(images), np.int64)
        at = 0
        while parts:  # each part is freed as soon as it has been copied
            records = parts.pop(0)
            rows = slice(at, at + len(records))
            images[rows] = records[:, 1:].reshape(-1, 3, 32, 32)
            labels[rows] = records[:, 0]
            at = rows.stop
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        super().__init__(images, labels, mean, std, self.names)

    @classmethod
    def _find(cls, root: str | os.PathLike[str] | None, wanted: Sequence[str], download: bool) -> list[Path]:
        top = data_root(root)
        missing = wanted[0]
        for folder in [top / _FOLDER] if root is None else [top / _FOLDER, top]:
            absent = [name for name in wanted if not (folder / name).is_file()]
            if not absent:
                return [folder / name for name in wanted]
            if len(absent) < len(wanted):
                missing = absent[0]
        archive = top / cls.archive.name
        mine = not archive.is_file()
        if mine:
            pickles = next(
                (p for n in ("cifar-10-batches-py", "cifar-10-python.tar.gz") if (p := top / n).exists()), None
            )
            if offline() or not download:
                why = "FASTNN_OFFLINE forbids the network" if download else "allow download=True"
                note = (
                    f" {pickles} is the Python version: pickles, which can run code when they are read, so fastnn does "
                    f"not read them."
                    if pickles
                    else ""
                )
                raise FileNotFoundError(
                    f"CIFAR10: {missing} is neither in {top / _FOLDER} nor in {top}.{note} Put {cls.archive.name} "
                    f"(from {cls.mirrors[0]}) into {top} or name the directory that holds it (root=, --data-dir or "
                    f"FASTNN_DATA); {why}"
                )
            fetch(cls.archive, cls.mirrors, top)
        extract(archive, top / _FOLDER)
        if mine:
            archive.unlink()  # what was unpacked is the cache
        return [top / _FOLDER / name for name in wanted]


def extract(archive: Path, folder: Path) -> None:
    """Unpack the six batches of CIFAR-10's binary archive into ``folder``: these members alone, all of them or none.

    The archive is read as a stream, each batch under its expected name only, whatever else the archive holds.
    """
    import gzip
    import shutil
    import tarfile
    import zlib

    expected = {f"{_FOLDER}/{name}" for name in _BATCHES}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # The batches take their names when the stack closes: after the last has been read without an error.
        with (
            ExitStack() as stack,
            gzip.open(archive, "rb") as packed,
            tarfile.open(fileobj=packed, mode="r|") as tar,
        ):
            for member in tar:
                if member.name not in expected:
                    continue
                data = tar.extractfile(member) if member.isreg() else None
                if data is None or member.size % 3073 or not 0 < member.size <= 1 << 30:
                    raise ValueError(f"{archive}: {member.name} is not a file of 3073-byte records")
                expected.remove(member.name)
                shutil.copyfileobj(data, stack.enter_context(atomic(folder / Path(member.name).name)), 1 << 20)
            while packed.read(1 << 20):
                pass  # to the end, where gzip's checksum is
            if expected:
                raise ValueError(f"{archive}: {min(expected)} is not in it; fetch the binary version again")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{archive}: it is truncated or damaged ({error}); delete it and fetch it again") from None
