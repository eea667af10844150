"""MNIST, FashionMNIST and CIFAR10 from disk: the layouts they are found in, and what a wrong file is told."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn.data import CIFAR10, MNIST, FashionMNIST
from fastnn.data.cifar import extract

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 28, 28)).astype(np.uint8)
LABELS = RNG.integers(0, 10, 12).astype(np.uint8)
RECORDS = np.concatenate([np.arange(60)[:, None] % 10, RNG.integers(0, 256, (60, 3072))], axis=1).astype(np.uint8)
BATCHES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTNN_OFFLINE", "1")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, packed: bool = True, part: str = "train", **replace: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, name, array in (("images", "images-idx3", IMAGES), ("labels", "labels-idx1", LABELS)):
        data = replace.get(kind, idx(array))
        file = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
        file.write_bytes(gzip.compress(data) if packed else data)


def write_cifar(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(BATCHES):
        RECORDS[i * 10 : i * 10 + 10].tofile(folder / name)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("where", "kind"), [("MNIST/raw", MNIST), ("FashionMNIST/raw", FashionMNIST), (".", MNIST)])
def test_mnist_layouts(tmp_path: Path, where: str, kind: type[MNIST], packed: bool) -> None:
    write_mnist(tmp_path / where, packed)
    data = kind(tmp_path)
    assert (data.images[:, 0] == IMAGES).all() and data.images.shape == (12, 1, 28, 28)
    assert (data.labels == LABELS).all() and data.labels.dtype == np.int64
    assert data.classes is not None and len(data.classes) == 10 and len(data) == 12
    mean, std = kind.normalisation
    image, label = data[3]
    assert np.abs(image[0] - (IMAGES[3] / 255 - mean) / std).max() < 1e-5 and label == LABELS[3]
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte.gz is missing and FASTNN_OFFLINE"):
        kind(str(tmp_path), train=False)


def test_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_mnist(tmp_path / "cache/fastnn/MNIST/raw", part="t10k")
    assert len(MNIST(train=False)) == 12
    monkeypatch.setenv("FASTNN_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "data/MNIST/raw")):
        MNIST()
    write_cifar(tmp_path / "data/cifar-10-batches-bin")
    assert len(CIFAR10()) == 50
    monkeypatch.delenv("FASTNN_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_mnist(tmp_path / "home/.cache/fastnn/MNIST/raw")
    write_mnist(tmp_path / "home/mine")
    assert len(MNIST()) == len(MNIST("~/mine")) == 12


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"is neither in .*/MNIST/raw nor in .*name the directory that holds it"
    ):
        MNIST(tmp_path, download=False)
    with pytest.raises(
        FileNotFoundError, match=r"MNIST/raw/train-images-idx3-ubyte.gz is missing.*unset FASTNN_OFFLINE"
    ):
        MNIST(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; name the directory"):
        MNIST(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


SHORT = gzip.compress(idx(IMAGES))[:-2000]
WRONG: dict[str, tuple[dict[str, bytes], str]] = {
    "label magic": (
        {"images": idx(LABELS)},
        r"train-images.*: its magic number is 0x00000801, not 0x00000803 \(images\)",
    ),
    "image magic": (
        {"labels": idx(IMAGES)},
        r"train-labels.*: its magic number is 0x00000803, not 0x00000801 \(labels\)",
    ),
    "not IDX": ({"images": b"<html>Not Found</html>"}, "train-images.*: its magic number is 0x3c68746d"),
    "short header": ({"images": idx(IMAGES)[:9]}, r"train-images.*: it ends inside its header \(9 bytes\)"),
    "empty": ({"labels": b""}, r"train-labels.*: it ends inside its header \(0 bytes\)"),
    "truncated": (
        {"images": idx(IMAGES)[:-1]},
        "train-images.*: its header promises 9408 bytes for 12x28x28, it holds fewer",
    ),
    "trailing": ({"labels": idx(LABELS) + b"x"}, "train-labels.*: its header promises 12 bytes for 12, it holds more"),
    "absurd": ({"images": struct.pack(">IIII", 0x803, 2**31, 2**31, 2**31)}, "train-images.*: its header promises"),
    "32x32": (
        {"images": idx(np.zeros((12, 32, 32), np.uint8))},
        "train-images.*: its images are 32x32, expected 28x28",
    ),
    "counts": ({"labels": idx(LABELS[:11])}, "train-images.* holds 12 images but .*train-labels.* 11 labels"),
    "label 10": ({"labels": idx(np.arange(12, dtype=np.uint8))}, r"train-labels.*: label 10 is 10, outside 0\.\.9"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_mnist_files(tmp_path: Path, case: str, packed: bool) -> None:
    replace, words = WRONG[case]
    write_mnist(tmp_path / "MNIST/raw", packed, **replace)
    with pytest.raises(ValueError, match=words) as caught:
        MNIST(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "checksum", "not gzip"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        del data[-2000:]
    elif damage == "flipped":
        data[5000] ^= 0x55
    elif damage == "checksum":
        data[-8] ^= 1
    else:
        data[:2] = b"PK"
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte\.gz: its gzip data is truncated or damaged .*delete"
    ):
        MNIST(tmp_path)


def test_files_of_the_other_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    size = (tmp_path / "train-images-idx3-ubyte.gz").stat().st_size
    official = dict(MNIST.files)
    official["train-images"] = official["train-images"]._replace(size=size)
    monkeypatch.setattr(MNIST, "files", official)
    assert len(MNIST(tmp_path)) == 12
    with pytest.raises(ValueError, match="this is MNIST's file, not FashionMNIST's"):
        FashionMNIST(tmp_path)


@pytest.mark.parametrize("where", ["cifar-10-batches-bin", "."])
def test_cifar_layouts(tmp_path: Path, where: str) -> None:
    write_cifar(tmp_path / where)
    train, test = CIFAR10(tmp_path), CIFAR10(tmp_path, train=False)
    assert train.images.shape == (50, 3, 32, 32) and test.images.shape == (10, 3, 32, 32)
    assert (train.images.reshape(50, -1) == RECORDS[:50, 1:]).all() and (train.labels == RECORDS[:50, 0]).all()
    assert (test.images[:, 2, 31, 31] == RECORDS[50:, -1]).all() and test.classes is not None
    assert test.classes[3] == "cat" and train.images.flags.c_contiguous
    image, _ = train[7]
    assert np.abs(image[2] - (train.images[7, 2] / 255 - 0.4465) / 0.2616).max() < 1e-5


def test_wrong_cifar_files(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(RECORDS[:5].tobytes()[:-1])
    with pytest.raises(
        ValueError, match=r"data_batch_3.bin: its 15364 bytes are not a whole number of 3073-byte records"
    ):
        CIFAR10(tmp_path)
    (RECORDS[:5] + np.uint8(8)).tofile(tmp_path / "data_batch_3.bin")
    with pytest.raises(ValueError, match=r"data_batch_3.bin: label 2 is 10, outside 0\.\.9"):
        CIFAR10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin is neither in .*FASTNN_OFFLINE forbids the network"):
        CIFAR10(tmp_path)
    assert len(CIFAR10(tmp_path, train=False)) == 10


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_the_pickle_version_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{name} is the Python version: pickles.*Put cifar-10-binary.tar.gz"):
        CIFAR10(tmp_path, download=False)


def archive(path: Path, **change: Any) -> Path:
    """CIFAR-10's archive in small, with a readme and two members that would land elsewhere."""
    with tarfile.open(path, "w:gz") as tar:

        def add(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), kind, "../../evil"
            tar.addfile(member, io.BytesIO(data))

        add("cifar-10-batches-bin/readme.html", b"<html>")
        add("../evil.bin", b"x")
        add(f"{path.parent}-evil.bin", b"x")
        for i, name in enumerate(BATCHES):
            if name == change.get("without"):
                continue
            data = RECORDS[i * 10 : i * 10 + 10].tobytes()
            if name == change.get("cut"):
                data = data[:-1]
            linked = name == change.get("link")
            add(f"cifar-10-batches-bin/{name}", b"" if linked else data, tarfile.SYMTYPE if linked else tarfile.REGTYPE)
    return path


def test_cifar_from_an_archive_at_hand(tmp_path: Path) -> None:
    archive(tmp_path / "cifar-10-binary.tar.gz")
    data = CIFAR10(tmp_path)
    assert (data.images.reshape(50, -1) == RECORDS[:50, 1:]).all()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(["cifar-10-binary.tar.gz", *BATCHES])
    assert not (tmp_path.parent / "evil.bin").exists() and not Path(f"{tmp_path}-evil.bin").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"without": "data_batch_4.bin"}, "data_batch_4.bin is not in it"),
        ({"cut": "data_batch_5.bin"}, "data_batch_5.bin is not a file of 3073-byte records"),
        ({"link": "test_batch.bin"}, "test_batch.bin is not a file of 3073-byte records"),
        ({"truncate": 3000}, "it is truncated or damaged"),
        ({"truncate": 4}, "it is truncated or damaged"),
        ({"flip": 100_000}, "it is truncated or damaged"),
        ({"flip": -8}, "it is truncated or damaged"),
        ({"replace": b"<html>Not Found</html>"}, "it is truncated or damaged"),
    ],
)
def test_wrong_archives_leave_nothing(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = archive(tmp_path / "cifar-10-binary.tar.gz", **change)
    data = bytearray(path.read_bytes())
    if "truncate" in change:
        del data[-change["truncate"] :]
    if "flip" in change:
        data[change["flip"]] ^= 0x55
    path.write_bytes(change.get("replace", data))
    with pytest.raises(ValueError, match=words) as caught:
        extract(path, tmp_path / "to")
    assert str(path) in str(caught.value) and not list((tmp_path / "to").iterdir())
