"""Records of convolution, unfold and fold. The reference pads, takes windows, and sums products: nothing else."""

from __future__ import annotations

import numpy as np

from fastnn import functional as F

from . import Record, Sample, randn

# N, C, H, W, K, R, S, and the arguments. Each row is there for what its comment says.
CASES = [
    ((2, 1, 28, 28, 6, 5, 5), {"padding": 2}),  # LeNet's first layer
    ((3, 6, 14, 14, 16, 5, 5), {}),  # and its second
    ((2, 3, 9, 11, 7, 3, 3), {"padding": 1}),  # an odd number of output channels
    ((1, 2, 5, 5, 1, 5, 5), {}),  # the kernel is the input
    ((2, 5, 6, 7, 13, 1, 1), {}),  # 1 x 1: a plain GEMM
    ((2, 4, 8, 9, 3, 1, 1), {"stride": 2}),  # rows and columns that nobody reads
    ((2, 3, 13, 15, 4, 3, 5), {"stride": (2, 3), "padding": (1, 2)}),
    ((1, 3, 23, 21, 5, 11, 11), {"stride": 4, "padding": 2}),  # AlexNet's first layer
    ((2, 2, 12, 10, 3, 3, 2), {"dilation": (2, 3), "padding": (2, 1)}),
    ((2, 2, 11, 12, 4, 3, 3), {"stride": (3, 2), "dilation": (2, 2), "padding": 3}),
    ((2, 6, 7, 8, 9, 3, 3), {"groups": 3, "padding": 1}),
    ((2, 5, 8, 7, 5, 3, 3), {"groups": 5, "padding": 1}),  # depthwise
    ((2, 3, 8, 9, 6, 3, 3), {"groups": 3, "stride": 2, "padding": 1}),
    ((2, 2, 6, 7, 3, 4, 2), {"padding": "same"}),  # uneven: the extra row is below, the extra column to the right
    ((2, 2, 6, 7, 3, 2, 4), {"padding": "same", "dilation": (3, 1)}),
    ((1, 2, 6, 7, 3, 2, 3), {"padding": "valid"}),
    ((1, 1, 2, 3, 2, 2, 2), {"padding": 4}),  # whole rows and columns of padding
    ((1, 2, 3, 150, 3, 2, 3), {}),  # wide rows
    ((0, 2, 5, 5, 3, 3, 3), {}),  # an empty batch
    ((2, 2, 5, 5, 0, 3, 3), {}),  # no output channels
    ((2, 0, 5, 5, 3, 3, 3), {}),  # no input channels: the bias alone
    ((2, 33, 9, 9, 40, 3, 3), {"padding": 1}),  # more channels than a register tile
    ((3, 17, 7, 6, 20, 3, 3), {"padding": (1, 0)}),  # Winograd by the table; tiles beyond the map
    ((2, 34, 6, 5, 32, 3, 3), {"padding": 1, "groups": 2}),  # and with groups
    ((3, 17, 7, 6, 20, 5, 5), {"padding": (2, 1)}),  # the same of 5x5
    ((2, 34, 6, 5, 32, 5, 5), {"padding": 2, "groups": 2}),
]
COLUMN_CASES = [
    ((2, 3, 7, 8), (3, 2), {}),
    ((1, 2, 9, 7), (3, 3), {"padding": 1, "stride": 2}),
    ((2, 1, 9, 10), 2, {"dilation": (3, 2), "padding": (1, 0), "stride": (1, 3)}),
    ((3, 8, 9), (2, 2), {}),
    ((0, 2, 5, 5), 3, {}),
]


def two(value):
    return value if isinstance(value, tuple) else (value, value)


def windows(x, kernel, stride=1, padding=0, dilation=1):
    """(N, C, Ho, Wo, R, S): what each output sees. ``padding`` may be ((top, bottom), (left, right))."""
    stride, dilation = two(stride), two(dilation)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel)]
        padding = tuple((p // 2, p - p // 2) for p in total)
    else:
        padding = tuple((p, p) for p in two(padding))
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    seen = np.lib.stride_tricks.sliding_window_view(x, span, (2, 3))
    return seen[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def conv2d_reference(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    if x.ndim == 3:
        return conv2d_reference(x[None], w, b, stride, padding, dilation, groups)[0]
    seen = windows(x, w.shape[2:], stride, padding, dilation)
    n, c, *rest = seen.shape
    seen = seen.reshape(n, groups, c // groups, *rest)
    k = w.shape[0]
    w = w.reshape(groups, k // groups, *w.shape[1:])
    y = np.einsum("ngcijrs,gkcrs->ngkij", seen, w)
    y = y.reshape(n, k, *y.shape[3:])
    return y if b is None else y + b[:, None, None]


def conv2d_samples(rng):
    samples = []
    for i, ((n, c, h, w, k, r, s), kwargs) in enumerate(CASES):
        weight = randn(rng, k, c // kwargs.get("groups", 1), r, s)
        bias = (randn(rng, k),) if i % 3 else ()
        samples.append(Sample((randn(rng, n, c, h, w), weight, *bias), kwargs))
    samples.append(Sample((randn(rng, 2, 6, 7), randn(rng, 3, 2, 3, 3), randn(rng, 3)), {"padding": 1}))  # unbatched
    return samples


def conv1d_reference(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    padding = padding if isinstance(padding, str) else (0, padding)
    y = conv2d_reference(x[..., None, :], w[..., None, :], b, (1, stride), padding, (1, dilation), groups)
    return y[..., 0, :]


def conv1d_samples(rng):
    return [
        Sample((randn(rng, 2, 3, 17), randn(rng, 4, 3, 5), randn(rng, 4)), {"stride": 2, "padding": 2}),
        Sample((randn(rng, 4, 9), randn(rng, 6, 2, 4)), {"groups": 2, "padding": "same"}),
        Sample((randn(rng, 1, 2, 12), randn(rng, 1, 2, 3), randn(rng, 1)), {"dilation": 3}),
        Sample((randn(rng, 0, 2, 12), randn(rng, 1, 2, 3))),
    ]


def unfold_reference(x, kernel_size, dilation=1, padding=0, stride=1):
    if x.ndim == 3:
        return unfold_reference(x[None], kernel_size, dilation, padding, stride)[0]
    seen = windows(x, two(kernel_size), stride, padding, dilation)
    n, c, ho, wo, r, s = seen.shape
    return seen.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * r * s, ho * wo)


def fold_reference(columns, output_size, kernel_size, dilation=1, padding=0, stride=1):
    if columns.ndim == 2:
        return fold_reference(columns[None], output_size, kernel_size, dilation, padding, stride)[0]
    (h, w), (r, s) = two(output_size), two(kernel_size)
    n, c = len(columns), columns.shape[1] // (r * s)
    # Each place of the image by its own number: unfolded, they say where each column's entries belong.
    places = unfold_reference(1 + np.arange(c * h * w).reshape(1, c, h, w), (r, s), dilation, padding, stride)[0]
    image = np.zeros((n, c * h * w + 1))
    for i in range(n):
        np.add.at(image[i], places, columns[i])
    return image[:, 1:].reshape(n, c, h, w)


def unfold_samples(rng):
    return [Sample((randn(rng, *shape), kernel), kwargs) for shape, kernel, kwargs in COLUMN_CASES]


def fold_samples(rng):
    samples = []
    for shape, kernel, kwargs in COLUMN_CASES:
        columns = unfold_reference(np.zeros(shape), kernel, **kwargs).shape
        samples.append(Sample((randn(rng, *columns), shape[-2:], kernel), kwargs))
    return samples


RECORDS = [
    Record("conv2d", F.conv2d, conv2d_samples, conv2d_reference, differentiable=(0, 1, 2)),
    Record("conv1d", F.conv1d, conv1d_samples, conv1d_reference, differentiable=(0, 1, 2)),
    Record("unfold", F.unfold, unfold_samples, unfold_reference),
    Record("fold", F.fold, fold_samples, fold_reference),
]
