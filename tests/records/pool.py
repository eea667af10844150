"""Records of pooling. The references visit window after window, as the definitions read."""

from __future__ import annotations

import numpy as np

from fastnn import functional as F
from fastnn import kernels

from . import Record, Sample, distinct

MAX_ARGUMENTS = [
    {"kernel_size": 2},
    {"kernel_size": (2, 2), "stride": (2, 2), "ceil_mode": True},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 0)},
    {"kernel_size": 2, "stride": 4, "padding": 1, "ceil_mode": True},
    {"kernel_size": (2, 3), "stride": (3, 1), "padding": (1, 1), "dilation": (3, 2)},
]
AVG_ARGUMENTS = [
    {"kernel_size": 2},
    {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
    {"kernel_size": (3, 4), "stride": (2, 3), "padding": (1, 2), "ceil_mode": True, "divisor_override": 5},
    {"kernel_size": (1, 3), "stride": 4, "ceil_mode": True, "divisor_override": -2},
]
SHAPES = [(2, 3, 9, 11), (3, 5, 7), (1, 1, 6, 45), (2, 2, 34, 33), (3, 6, 5, 6), (0, 3, 8, 8)]
ADAPTIVE = [1, 4, (None, 3), (5, 2), 13, (7, 37), 0]


def samples(arguments, *more):
    def draw(rng):
        pairs = [(shape, a) for shape in SHAPES for a in arguments] + list(more)
        return [Sample((distinct(rng, *shape),), a) for shape, a in pairs]

    return draw


def adaptive_samples(rng):
    shapes = [(2, 3, 8, 12), (4, 7, 37), (1, 2, 13, 5), (3, 6, 5, 7), (0, 2, 5, 5)]
    return [Sample((distinct(rng, *shape), size)) for shape in shapes for size in ADAPTIVE]


def both(value):
    return value if isinstance(value, tuple) else (value, value)


def windows(size, kernel, stride, padding, dilation, ceil_mode):
    """The positions of each window along one dimension, in the padded input."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return [o * stride - padding + dilation * np.arange(kernel) for o in range(count)]


def pool(x, rows, columns, reduce):
    y = np.zeros((*x.shape[:-2], len(rows), len(columns)))
    extra = np.zeros(y.shape, np.int64)
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            y[..., i, j], extra[..., i, j] = reduce(x, r, c)
    return y, extra


def maximum(x, rows, columns):
    """The maximum and its index in the plane: the first of equals."""
    h, w = x.shape[-2:]
    rows, columns = rows[(rows >= 0) & (rows < h)], columns[(columns >= 0) & (columns < w)]
    index = (rows[:, None] * w + columns).ravel()
    flat = x.reshape(*x.shape[:-2], h * w)[..., index]
    return flat.max(axis=-1), index[flat.argmax(axis=-1)]


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=True):
    kernel = both(kernel_size)
    each = zip(x.shape[-2:], kernel, both(stride or kernel), both(padding), both(dilation))
    y, indices = pool(x, *(windows(*a, ceil_mode) for a in each), maximum)
    return (y, indices) if return_indices else y


def max_pool2d_taps(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_taps=True):
    y, indices = max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
    steps, pads, spread = (np.array(both(v)) for v in (stride or kernel_size, padding, dilation))
    corner = np.moveaxis(np.indices(y.shape[-2:]), 0, -1) * steps - pads
    h, w = np.moveaxis((np.stack(np.divmod(indices, x.shape[-1]), -1) - corner) // spread, -1, 0)
    return y, (h * both(kernel_size)[1] + w).astype(np.uint8)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    kernel = both(kernel_size)
    padding = both(padding)

    def mean(x, rows, columns):
        (h, w), (ph, pw) = x.shape[-2:], padding
        counted = (rows < h + ph).sum() * (columns < w + pw).sum()
        rows, columns = rows[(rows >= 0) & (rows < h)], columns[(columns >= 0) & (columns < w)]
        if not count_include_pad:
            counted = rows.size * columns.size
        total = x[..., rows[:, None], columns].sum(axis=(-2, -1))
        return total / (counted if divisor_override is None else divisor_override), 0

    each = zip(x.shape[-2:], kernel, both(stride or kernel), padding, (1, 1))
    return pool(x, *(windows(*a, ceil_mode) for a in each), mean)[0]


def adaptive_windows(x, output_size):
    for size, count in zip(x.shape[-2:], both(output_size)):
        count = size if count is None else count
        yield [np.arange(o * size // count, -(-(o + 1) * size // count)) for o in range(count)]


def adaptive_max_pool2d(x, output_size, return_indices=False):
    y, indices = pool(x, *adaptive_windows(x, output_size), maximum)
    return (y, indices) if return_indices else y


def adaptive_avg_pool2d(x, output_size):
    mean = lambda x, r, c: (x[..., r[:, None], c].mean(axis=(-2, -1)), 0)  # noqa: E731
    return pool(x, *adaptive_windows(x, output_size), mean)[0]


LARGE = ((1, 2, 40, 38), {"kernel_size": (21, 20), "stride": 3})
TALL = ((1, 2, 9, 70), {"kernel_size": (3, 2), "stride": (1, 2)})  # windows overlap in rows, not in columns
WIDE = ((1, 1, 5, 70), {"kernel_size": 2})
GLOBAL = ((2, 3, 40, 37), {"kernel_size": (40, 37)})
MANY = ((5, 7, 3, 5), {"kernel_size": (3, 5)})  # whole planes, more than a vector's lanes of them
RECORDS = [
    Record(
        "max_pool2d",
        F.max_pool2d,
        samples(MAX_ARGUMENTS, LARGE, WIDE, GLOBAL),
        lambda x, **kwargs: max_pool2d(x, return_indices=False, **kwargs),
    ),
    Record(
        "max_pool2d_indices",
        F.max_pool2d,
        samples(
            [{**a, "return_indices": True} for a in MAX_ARGUMENTS], (GLOBAL[0], {**GLOBAL[1], "return_indices": True})
        ),
        max_pool2d,
        nan=False,  # its index may differ from NumPy's where there are several: tests/test_pool.py
    ),
    Record(
        "max_pool2d_taps",
        kernels.max_pool2d,
        samples([{**a, "return_taps": True} for a in MAX_ARGUMENTS], (WIDE[0], {**WIDE[1], "return_taps": True})),
        max_pool2d_taps,
        differentiable=(),
        nan=False,  # as with the indices
    ),
    Record("avg_pool2d", F.avg_pool2d, samples(AVG_ARGUMENTS, LARGE, TALL, WIDE, GLOBAL, MANY), avg_pool2d),
    Record("adaptive_max_pool2d", F.adaptive_max_pool2d, adaptive_samples, adaptive_max_pool2d),
    Record("adaptive_avg_pool2d", F.adaptive_avg_pool2d, adaptive_samples, adaptive_avg_pool2d),
]
