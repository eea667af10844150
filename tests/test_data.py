"""Datasets in memory: arrays, parts of them, the embedded digits, and the random numbers behind the shuffling."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn.data
from fastnn import philox
from fastnn.data import ArrayDataset, Subset, digits, random_split


def test_philox_matches_the_published_vectors() -> None:
    """Random123's known answers for philox4x32-10."""
    ones = 2**64 - 1
    cases: list[tuple[int, int, int, str]] = [
        (0, 0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (ones, ones, ones, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (0x85A308D3243F6A88, 0x299F31D0A4093822, 0x0370734413198A2E, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ]
    for index, seed, stream, words in cases:
        got = philox.blocks(np.array(index, np.uint64), seed, stream)
        assert " ".join(f"{word:08x}" for word in got) == words


def test_philox_parts_are_those_of_the_whole() -> None:
    whole = philox.words(103, 7, 9)
    assert whole.shape == (103,) and (philox.words(50, 7, 9) == whole[:50]).all()
    assert (philox.blocks(np.array([[20, 3]]), 7, 9)[0, 1] == whole[12:16]).all()
    assert philox.words(0, 7).shape == (0,) and philox.blocks(np.empty((0, 2), int), 1).shape == (0, 2, 4)
    assert (philox.words(8, -1) == philox.words(8, 2**64 - 1)).all()


def test_permutation() -> None:
    for n in (0, 1, 2, 1000):
        p = philox.permutation(n, 1, 2)
        assert p.dtype == np.int64 and (np.sort(p) == np.arange(n)).all()
    # Fixed for good: a checkpoint's resumed shuffling depends on it.
    assert philox.permutation(8, 0, philox.stream("shuffle", 0)).tolist() == EXPECTED_ORDER
    assert len({philox.stream(p, 5) for p in ("shuffle", "split", "augment")}) == 3


EXPECTED_ORDER = [6, 4, 3, 1, 0, 7, 5, 2]


@pytest.mark.parametrize("size", [8, 12, 28, 32])
def test_digits(size: int) -> None:
    train, test = digits(size=size), digits(train=False, size=size)
    assert train.images.shape == (1442, 1, size, size) and test.images.shape == (355, 1, size, size)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    assert train.images.max() == 255 or size not in (8, 28)
    assert (np.bincount(test.labels) * 5 - np.bincount(np.r_[train.labels, test.labels]) <= 0).all()
    assert train.classes == tuple("0123456789") and (train.mean, train.std) == (test.mean, test.std)
    x = train.normalize(train.images)
    assert abs(x.mean()) < 1e-4 and abs(x.std() - 1) < 1e-4
    if size == 28:
        assert not train.images[:, :, :1].any() and not train.images[..., -1:].any(), "a margin"


def test_digits_never_change() -> None:
    def digest(x: np.ndarray) -> str:
        return hashlib.sha256(x.tobytes()).hexdigest()[:16]

    assert {n: digest(digits(size=n).images) for n in (8, 28, 32)} == EXPECTED_DIGITS
    assert digest(digits().labels) == EXPECTED_LABELS


EXPECTED_DIGITS = {8: "503377f9cfaca149", 28: "f5b5c092de0e2031", 32: "8381251eb0c4b4ba"}
EXPECTED_LABELS = "9313721fa010b406"


def test_digits_match_scikit_learn() -> None:
    original = pytest.importorskip("sklearn.datasets").load_digits()
    images = np.round(np.concatenate([digits().images, digits(train=False).images])[:, 0] / 255 * 16)
    assert sorted(map(bytes, images.astype(np.uint8))) == sorted(map(bytes, original.images.astype(np.uint8)))


def test_embedded_digits_are_small() -> None:
    assert sum(p.stat().st_size for p in Path(fastnn.data.__file__).parent.glob("*.gz")) <= 100_000


@pytest.mark.parametrize("size", [0, 9, -28, 28.0, True, "28", 4096])
def test_digits_of_other_sizes(size: Any) -> None:
    with pytest.raises(ValueError, match="size must be 8 or from 12 to 1024"):
        digits(size=size)


def test_array_dataset() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 4, 4)).astype(np.uint8)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.4, 0.3]
    data = ArrayDataset(images, np.arange(5, dtype=np.uint8), mean, std)
    image, label = data[-1]
    want = (images[-1] / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert image.dtype == np.float32 and np.abs(image - want).max() < 1e-6 and label == 4
    x, y = data.gather(np.array([4, 0]))
    assert (data.normalize(x)[0] == image).all() and y.dtype == np.int64 and y.tolist() == [4, 0]
    assert len(data) == 5 and repr(data) == "ArrayDataset(5 images (3, 4, 4) uint8)"

    plain = ArrayDataset(images[:, 0].astype(np.float64), rng.standard_normal((5, 2)))
    assert (plain[2][0] == images[2, 0]).all() and plain[2][0].dtype == np.float32 and plain[2][1].shape == (2,)
    with pytest.raises(IndexError):
        plain[5]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.zeros((2, 1), int), [0, 1]), TypeError, "images must be uint8, float32 or float64, got int64"),
        ((np.zeros((2, 1)), [0, 1, 2]), ValueError, "2 images but 3 labels"),
        ((np.zeros(()), 3), ValueError, "must start with N"),
        ((np.zeros((2, 3, 4, 4)), [0, 1], [0.5, 0.5]), ValueError, "mean must be one number or 3"),
        ((np.zeros((2, 3, 4, 4)), [0, 1], None, [1, 0, 1]), ValueError, "std must be positive"),
        ((np.zeros((3, 1)), [0, 2, 1], None, None, "ab"), ValueError, r"label 1 is 2, outside 0\.\.1"),
        ((np.zeros((3, 1)), [0, -1, -2], None, None, "ab"), ValueError, r"label 1 is -1, .* \(2 such labels\)"),
    ],
)
def test_bad_arrays(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ArrayDataset(*arguments)


def test_subset_and_random_split() -> None:
    data = ArrayDataset(np.arange(10, dtype=np.float32)[:, None], np.arange(10), 1.0, 2.0, "0123456789")
    part = Subset(data, [7, -1, 3])
    assert len(part) == 3 and part[1][1] == 9 and part[-1][1] == 3 and part.mean == 1.0 and part.classes == data.classes
    x, y = part.gather(np.array([2, 0]))
    assert x.tolist() == [[3], [7]] and y.tolist() == [3, 7] and part.normalize(x)[0, 0] == 1
    nested = Subset(part, [1])
    assert nested.gather(np.array([0]))[1].tolist() == [9]
    assert not hasattr(Subset([1, 2], [0]), "gather") and not hasattr(part, "nothing")

    parts = random_split(data, [7, 3], seed=4)
    assert [len(p) for p in parts] == [7, 3] and sorted(np.r_[parts[0].indices, parts[1].indices]) == list(range(10))
    assert (random_split(data, [7, 3], seed=4)[0].indices == parts[0].indices).all()
    assert [len(p) for p in random_split(data, [0.75, 0.25])] == [8, 2]
    assert [len(p) for p in random_split(data, [1 / 3] * 3)] == [4, 3, 3]
    for wrong in ([5, 4], [11, -1], [0.5, 0.4], [9.5, 0.5]):
        with pytest.raises(ValueError, match="must add up to the dataset's 10"):
            random_split(data, wrong)
    with pytest.raises(IndexError, match=r"indices 0\.\.10 of a dataset of 10"):
        Subset(data, [0, 10])
