"""The DataLoader: every sample once, the same batches for any number of workers, exact resume, no thread left over."""

from __future__ import annotations

import gc
import json
import threading
import time
from typing import Any

import numpy as np
import pytest

from fastnn.data import (
    ArrayDataset,
    Augmentation,
    DataLoader,
    Draw,
    RandomCrop,
    RandomHorizontalFlip,
    Subset,
    digits,
)

DATA = ArrayDataset(
    np.arange(23 * 2 * 6 * 5, dtype=np.uint32).reshape(23, 2, 6, 5).astype(np.uint8), np.arange(23), 0.5, 0.25
)


class Items:
    """A dataset of samples, as a user writes one."""

    def __init__(self, n: int = 23, fail_at: int | None = None) -> None:
        self.n, self.fail_at = n, fail_at

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Any, int]:
        if i == self.fail_at:
            raise OSError(f"sample {i} is lost")
        return DATA[i]


def same(a: Any, b: Any) -> None:
    a, b = list(a), list(b)
    assert len(a) == len(b)
    for (x, y), (u, v) in zip(a, b):
        assert x.dtype == u.dtype and x.tobytes() == u.tobytes() and y.tobytes() == v.tobytes()


def labels(loader: Any) -> list[int]:
    return [int(i) for _, y in loader for i in y]


def workers_alive() -> int:
    return sum(t.name.startswith("fastnn-data") for t in threading.enumerate())


def test_in_order() -> None:
    loader = DataLoader(DATA, 5)
    batches = list(loader)
    assert len(loader) == len(batches) == 5 and [len(x) for x, _ in batches] == [5, 5, 5, 5, 3]
    x, y = batches[1]
    assert x.dtype == np.float32 and y.dtype == np.int64 and y.tolist() == [5, 6, 7, 8, 9]
    assert (x == DATA.normalize(DATA.images[5:10])).all() and x.flags.c_contiguous
    assert np.abs(x - (DATA.images[5:10] / 255 - 0.5) / 0.25).max() < 1e-6
    assert labels(loader) == list(range(23))
    assert len(DataLoader(DATA, 5, drop_last=True)) == 4 and labels(DataLoader(DATA, 5, drop_last=True))[-1] == 19
    assert len(DataLoader(DATA, 24, drop_last=True)) == 0 and labels(DataLoader(DATA, 24, drop_last=True)) == []
    assert labels(DataLoader(DATA)) == list(range(23))
    assert list(DataLoader(ArrayDataset(DATA.images[:0], []), 4)) == []
    assert labels(DataLoader(Subset(DATA, [3, 1, 2]), 2)) == [3, 1, 2]


def test_shuffling_is_by_seed_and_epoch() -> None:
    loader = DataLoader(DATA, 4, shuffle=True, seed=3)
    first, second = labels(loader), labels(loader)
    assert first != second and sorted(first) == sorted(second) == list(range(23))
    assert first == labels(loader.iterate(0)) and second == labels(loader.iterate(1))
    loader.set_epoch(1)
    assert labels(loader) == second
    assert labels(DataLoader(DATA, 7, shuffle=True, seed=3)) == first, "the order does not depend on the batch size"
    assert labels(DataLoader(DATA, 4, shuffle=True, seed=4)) != first
    assert first[:6] == EXPECTED_ORDER, "fixed for good: a resumed training depends on it"


EXPECTED_ORDER = [0, 12, 14, 5, 11, 19]

AUGMENTED = [RandomCrop((4, 4), padding=1), RandomHorizontalFlip(), RandomHorizontalFlip()]


@pytest.mark.parametrize("dataset", [DATA, Items(), Subset(DATA, range(3, 20)), Subset(Items(), range(3, 20))])
@pytest.mark.parametrize("transform", [None, AUGMENTED])
def test_the_same_batches_for_any_number_of_workers(dataset: Any, transform: Any) -> None:
    def batches(workers: int, prefetch: int = 2) -> list[Any]:
        loader = DataLoader(dataset, 3, True, num_workers=workers, transform=transform, prefetch=prefetch)
        return [*loader, *loader]

    alone = batches(0)
    for workers, prefetch in ((1, 1), (1, 5), (2, 1), (3, 2), (3, 50)):
        same(alone, batches(workers, prefetch))
    assert workers_alive() == 0


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, 7, 8, 11])
def test_resume_in_mid_epoch(workers: int, stop: int) -> None:
    def make() -> DataLoader:
        return DataLoader(DATA, 3, True, num_workers=workers, transform=AUGMENTED, seed=5)

    whole = [batch for epoch in range(3) for batch in make().iterate(epoch)]
    loader = make()
    handed: list[Any] = []
    while len(handed) < stop:
        for batch in loader:
            handed.append(batch)
            if len(handed) == stop:
                state = json.loads(json.dumps(loader.state_dict()))
                break
    resumed = make()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    rest = list(resumed)
    while len(handed) + len(rest) < len(whole):
        rest += list(resumed)
    same(whole, handed + rest)


def test_an_abandoned_epoch_is_not_continued() -> None:
    loader = DataLoader(DATA, 4, True)
    next(iter(loader))
    assert loader.state_dict()["epoch"] == 0 and loader.state_dict()["position"] == 1
    assert labels(loader) == labels(loader.iterate(1))
    assert loader.state_dict()["epoch"] == 2 and loader.state_dict()["position"] == 0


def test_a_state_of_another_loader() -> None:
    state = DataLoader(DATA, 4, True).state_dict()
    for other, words in (
        (DataLoader(DATA, 5, True), "batch_size 4, this loader has 5"),
        (DataLoader(DATA, 4), "shuffle True, this loader has False"),
        (DataLoader(DATA, 4, True, seed=1), "seed 0, this loader has 1"),
        (DataLoader(digits(), 4, True), "samples 23, this loader has 1442"),
    ):
        with pytest.raises(ValueError, match=words):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="at batch 6 of an epoch of 6"):
        DataLoader(DATA, 4, True).load_state_dict(state | {"position": 6})


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_worker_s_exception_arrives_in_its_place(workers: int) -> None:
    loader = DataLoader(Items(fail_at=13), 3, num_workers=workers)
    seen = []
    with pytest.raises(OSError, match="sample 13 is lost"):
        for _, y in loader:
            seen += y.tolist()
    assert seen == list(range(12)) and workers_alive() == 0


def test_abandoned_iteration_leaves_no_thread() -> None:
    loader = DataLoader(DATA, 1, num_workers=3)
    for _ in loader:
        assert workers_alive() > 0
        break
    iterator = iter(loader)
    next(iterator)
    del iterator
    never_started = iter(loader)
    gc.collect()
    assert workers_alive() == 0
    del never_started


def test_prefetch_is_bounded_and_runs_ahead() -> None:
    made: list[int] = []

    class Counting(Items):
        def __getitem__(self, i: int) -> tuple[Any, int]:
            made.append(i)
            return DATA[i]

    iterator = iter(DataLoader(Counting(), 1, num_workers=1, prefetch=3))
    next(iterator)
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert sorted(made) == [0, 1, 2, 3]


def test_transforms() -> None:
    images = np.arange(300 * 3 * 8 * 8).reshape(300, 3, 8, 8).astype(np.uint8)
    draw = Draw(1, 2, np.arange(300), 0)
    crop = RandomCrop(8, padding=2, fill=7)(images, draw)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=7)
    places = set()
    for i in range(300):
        found = [(a, b) for a in range(5) for b in range(5) if (padded[i, :, a : a + 8, b : b + 8] == crop[i]).all()]
        assert found
        places.update(found)
    assert len(places) == 25, "every place is drawn"

    flipped = RandomHorizontalFlip()(images, draw)
    changed = (flipped != images).any((1, 2, 3))
    assert 110 < changed.sum() < 190 and (flipped[changed] == images[changed][..., ::-1]).all()
    assert (RandomHorizontalFlip(1.0)(images, draw) == images[..., ::-1]).all()
    assert (RandomHorizontalFlip(0.0)(images, draw) == images).all()
    assert (images == np.arange(300 * 3 * 8 * 8).reshape(300, 3, 8, 8).astype(np.uint8)).all(), "the input is kept"
    # A sample's draw is its own: not its place in the batch, not the batch; another epoch or transform draws anew.
    some = np.array([40, 3, 77])
    assert (RandomCrop(8, 2, 7)(images[some], draw._replace(indices=some)) == crop[some]).all()
    for other in (draw._replace(epoch=3), draw._replace(seed=2), draw._replace(place=1)):
        assert (RandomCrop(8, 2, 7)(images, other) != crop).any()
    assert RandomCrop(4)(images[:0], draw._replace(indices=some[:0])).shape == (0, 3, 4, 4)


def test_a_plain_function_is_a_transform_of_stored_images() -> None:
    x, _ = next(iter(DataLoader(DATA, 2, transform=lambda images: 255 - images)))
    assert (x == DATA.normalize(255 - DATA.images[:2])).all()

    class Shift(Augmentation):
        def __call__(self, images: Any, draw: Draw) -> Any:
            return images + draw.below(4)[0][:, None, None, None].astype(np.uint8)

    x, _ = next(iter(DataLoader(DATA, 23, transform=Shift())))
    assert set(np.unique(np.round((x * 0.25 + 0.5) * 255 - DATA.images) % 256)) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: DataLoader(DATA, 0), ValueError, "batch_size must be at least 1, got 0"),
        (lambda: DataLoader(DATA, 2.5), TypeError, r"batch_size must be an int, got 2\.5"),
        (lambda: DataLoader(DATA, 2, num_workers=-1), ValueError, "num_workers must be at least 0"),
        (lambda: DataLoader(DATA, 2, prefetch=0), ValueError, "prefetch must be at least 1"),
        (lambda: DataLoader(iter([])), TypeError, "dataset must have __len__ and __getitem__, got list_iterator"),
        (lambda: DataLoader(DATA, transform=[3]), TypeError, "transform must be a function"),
        (lambda: DataLoader(DATA).set_epoch(-1), ValueError, "epoch must be at least 0"),
        (lambda: RandomCrop(0), ValueError, "size must be one or two ints of at least 1"),
        (lambda: RandomCrop(3, padding=(1, -1)), ValueError, "padding must be one or two ints of at least 0"),
        (lambda: RandomHorizontalFlip(1.5), ValueError, "p must be from 0 to 1"),
        (lambda: next(iter(DataLoader(DATA, transform=RandomCrop(9, 1)))), ValueError, "a window of 9x9 does not fit"),
        (lambda: next(iter(DataLoader([(np.zeros(2), 0), (np.zeros(3), 1)], 2))), ValueError, "must have one shape"),
    ],
)
def test_errors(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
