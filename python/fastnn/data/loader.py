"""The DataLoader: a dataset in batches, in an order that is a function of (seed, epoch), from any batch onwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import index
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .. import philox
from ..kernels._check import integer, shown
from .augment import Augmentation, Draw
from .dataset import Dataset, Gathers

__all__ = ["DataLoader"]

Array = NDArray[Any]
Batch = tuple[Array, Array]
Transform = Callable[..., Array]


class DataLoader:
    """Iterate over (images, labels): NumPy batches, images float32 and normalised (N, C, H, W), labels int64 (N,).

    Of a dataset that was moved to a GPU (``dataset.to("cuda")``) the batches are made there, transforms included, and
    are CuPy's; the same numbers.

    ``dataset`` is one of fastnn.data's, or anything with ``__len__`` whose items are (image, label). ``shuffle`` makes
    a new order each epoch, from (``seed``, epoch) alone; every ``iter()`` is the next epoch, ``set_epoch`` chooses one.
    ``drop_last`` leaves out a last batch that is not full. ``transform`` is a function or a list of them, called with
    the batch of *stored* images (uint8 pixels, before they are normalised); an :class:`Augmentation` gets its random
    numbers too. ``num_workers`` threads prepare ``prefetch`` batches each ahead of time; with 0 each is made when it is
    asked for. The batches are the same for any number of workers.

    ``state_dict()`` in the loop's body stands behind the batch at hand: a loader that loads it goes on with the next
    one, so a training resumes in mid-epoch with the same bits.

    >>> for images, labels in DataLoader(digits(size=28), batch_size=64, shuffle=True):
    ...     ...
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        transform: Transform | Sequence[Transform] | None = None,
        prefetch: int = 2,
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise TypeError(f"DataLoader: dataset must have __len__ and __getitem__, got {type(dataset).__name__}")
        self.dataset = dataset
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.num_workers = _at_least("num_workers", num_workers, 0)
        self.prefetch = _at_least("prefetch", prefetch, 1)
        self.shuffle, self.drop_last, self.seed = bool(shuffle), bool(drop_last), integer("DataLoader", "seed", seed)
        transforms = [] if transform is None else [transform] if callable(transform) else transform
        if not isinstance(transforms, (list, tuple)):
            raise TypeError(f"DataLoader: transform must be a function or a list of them, got {transform!r}")
        for function in transforms:
            if not callable(function):
                raise TypeError(f"DataLoader: transform must be a function or a list of them, got {function!r}")
        self.transforms: list[Transform] = list(transforms)
        self._next = (0, 0)  # the epoch and batch at which the next iter() starts
        self._at = (0, 0)  # the epoch and batch that come after what has been handed out

    def __len__(self) -> int:
        """Batches per epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Let the next ``iter()`` be this epoch, from its beginning."""
        self._next = self._at = (_at_least("epoch", epoch, 0), 0)

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self._at = self._next
        self._next = (epoch + 1, 0)
        return self._counted(epoch, start)

    def _counted(self, epoch: int, start: int) -> Iterator[Batch]:
        for number, batch in enumerate(self.iterate(epoch, start), start + 1):
            self._at = (epoch, number) if number < len(self) else (epoch + 1, 0)
            yield batch

    def iterate(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number ``start_batch`` on; leaves the loader's own count of epochs alone."""
        epoch = _at_least("epoch", epoch, 0)
        numbers = range(_at_least("start_batch", start_batch, 0), len(self))
        n = len(self.dataset)
        order = philox.permutation(n, self.seed, philox.stream("shuffle", epoch)) if self.shuffle else np.arange(n)

        def make(number: int) -> Batch:
            return self._batch(order[number * self.batch_size : (number + 1) * self.batch_size], epoch)

        if self.num_workers:
            return _ahead(make, numbers, self.num_workers, self.num_workers * self.prefetch)
        return map(make, numbers)

    def _batch(self, indices: Array, epoch: int) -> Batch:
        if hasattr(self.dataset, "gather"):
            images, labels = cast(Gathers, self.dataset).gather(indices)
        else:
            images, labels = _collect([self.dataset[int(i)] for i in indices])
        kind = type(images)  # NumPy's, or CuPy's where the dataset is on a GPU
        for place, transform in enumerate(self.transforms):
            if isinstance(transform, Augmentation):
                images = transform(images, Draw(self.seed, epoch, indices, place))
            else:
                images = transform(images)
            if type(images) is not kind or len(images) != len(indices):
                raise TypeError(
                    f"DataLoader: transform {place} must return the batch of {len(indices)} images, got {shown(images)}"
                )
        if hasattr(self.dataset, "normalize"):
            return cast(Gathers, self.dataset).normalize(images), labels
        return np.asarray(images, np.float32, order="C"), labels

    def state_dict(self) -> dict[str, int | bool]:
        """The epoch and the number of its batches handed out, and what the order depends on. Plain JSON values."""
        return {"epoch": self._at[0], "position": self._at[1], **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next ``iter()`` go on where ``state`` was taken. ValueError if the batches would differ."""
        if not isinstance(state, Mapping):
            raise TypeError(f"DataLoader: load_state_dict needs a dict, got {type(state).__name__}")
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"DataLoader: the state was taken with {name} {state.get(name)}, this loader has {value}, so the "
                    f"batches would differ; make the loader as it was, or start anew with set_epoch"
                )
        epoch, position = _at_least("epoch", state["epoch"], 0), _at_least("position", state["position"], 0)
        if position and position >= len(self):
            raise ValueError(f"DataLoader: the state is at batch {position} of an epoch of {len(self)}")
        self._next = self._at = (epoch, position)

    def _identity(self) -> dict[str, int | bool]:
        return {
            "samples": len(self.dataset),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "seed": self.seed,
        }


def _ahead(make: Callable[[int], Batch], numbers: range, workers: int, depth: int) -> Iterator[Batch]:
    """make(number) for each, in order, made by threads up to ``depth`` ahead. Ends its threads however it is left."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers, "fastnn-data")
    try:
        waiting = deque(pool.submit(make, number) for number in numbers[:depth])
        for number in numbers:
            batch = waiting.popleft().result()
            if number + depth < numbers.stop:
                waiting.append(pool.submit(make, number + depth))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(items: list[Any]) -> Batch:
    """Samples (image, label) as one batch."""
    for item in items:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"DataLoader: the dataset's items must be (image, label), got {shown(item)}")
    images = [np.asarray(image) for image, _ in items]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ValueError(f"DataLoader: the images of a batch must have one shape, got {sorted(shapes)}")
    labels = np.asarray([label for _, label in items])
    if labels.dtype.kind not in "fiub":
        raise TypeError(f"DataLoader: labels must be numbers, got {shown(items[0][1])} and others ({labels.dtype})")
    return np.stack(images), labels.astype(np.int64) if labels.dtype.kind in "iu" else labels


def _at_least(name: str, value: Any, least: int) -> int:
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"DataLoader: {name} must be an int, got {value!r}") from None
    if number < least:
        raise ValueError(f"DataLoader: {name} must be at least {least}, got {value}")
    return number
