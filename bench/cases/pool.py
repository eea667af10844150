"""Pooling: LeNet's, AlexNet-small's, AlexNet's and GoogLeNet's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fastnn
from fastnn import functional as F
from fastnn import kernels

from .case import Call, Calls, Case, compare, layouts


def max_pool(name: str, n: int, c: int, size: int, r: int = 2, stride: int = 2, padding: int = 0) -> Iterator[Case]:
    """Forward as in evaluation, backward alone, and both through the tape."""
    out = (size + 2 * padding - r) // stride + 1
    x_shape, y_shape = (n, c, size, size), (n, c, out, out)
    moved = 4.0 * n * c * (size * size + out * out)
    window = (r, stride, padding)

    def forward(t: Any, x: Any) -> Calls:
        return layouts(t, lambda x: lambda: t.nn.functional.max_pool2d(x, *window), x)

    def ours_backward(x: Any, dy: Any) -> Call:
        taps = kernels.max_pool2d(x, *window, return_taps=True)[1]
        return lambda: kernels.max_pool2d_taps_backward(dy, taps, x_shape, *window)

    def their_backward(t: Any, x: Any, dy: Any) -> Calls:
        pairs = [[r, r], [stride, stride], [padding, padding], [1, 1], False]

        def make(x: Any, dy: Any) -> Call:
            indices = t.ops.aten.max_pool2d_with_indices(x, *pairs)[1]
            return lambda: t.ops.aten.max_pool2d_with_indices_backward(dy, x, *pairs, indices)

        return layouts(t, make, x, dy)

    def ours_both(x: Any, dy: Any) -> Call:
        leaf = fastnn.tensor(x, requires_grad=True)
        return lambda: F.max_pool2d(leaf, *window).backward(dy)

    def their_both(t: Any, x: Any, dy: Any) -> Calls:
        def make(x: Any, dy: Any) -> Call:
            leaf = x.detach().requires_grad_()
            return lambda: t.nn.functional.max_pool2d(leaf, *window).backward(dy)

        return layouts(t, make, x, dy)

    ours = lambda x: lambda: F.max_pool2d(x, *window)  # noqa: E731
    yield compare("max_pool2d", f"{name} forward", [x_shape], ours, forward, bytes=moved)
    yield compare("max_pool2d", f"{name} backward", [x_shape, y_shape], ours_backward, their_backward, bytes=moved)
    yield compare("max_pool2d", f"{name} forward and backward", [x_shape, y_shape], ours_both, their_both)


def avg_pool(name: str, n: int, c: int, size: int, r: int, stride: int) -> Iterator[Case]:
    out = (size - r) // stride + 1
    x_shape, y_shape = (n, c, size, size), (n, c, out, out)
    moved = 4.0 * n * c * (size * size + out * out)

    def forward(t: Any, x: Any) -> Calls:
        return layouts(t, lambda x: lambda: t.nn.functional.avg_pool2d(x, r, stride), x)

    def backward(t: Any, dy: Any, x: Any) -> Calls:
        pairs = [[r, r], [stride, stride], [0, 0], False, True, None]
        return layouts(t, lambda dy, x: lambda: t.ops.aten.avg_pool2d_backward(dy, x, *pairs), dy, x)

    ours = lambda x: lambda: F.avg_pool2d(x, r, stride)  # noqa: E731
    gradient = lambda dy, x: lambda: kernels.avg_pool2d_backward(dy, x_shape, r, stride)  # noqa: E731
    yield compare("avg_pool2d", f"{name} forward", [x_shape], ours, forward, bytes=moved)
    yield compare("avg_pool2d", f"{name} backward", [y_shape, x_shape], gradient, backward, bytes=moved)


def adaptive(n: int, c: int, size: int, out: int) -> Iterator[Case]:
    for op in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        ours, peer = getattr(F, op), lambda t, op=op: getattr(t.nn.functional, op)
        yield compare(
            "avg_pool2d",
            f"{op} {n}x{c}x{size}x{size} to {out}",
            [(n, c, size, size)],
            lambda x, ours=ours: lambda: ours(x, out),
            lambda t, x, peer=peer: layouts(t, lambda x: lambda: peer(t)(x, out), x),
            bytes=4.0 * n * c * (size * size + out * out),
        )


CASES = [
    *max_pool("lenet pool1", 64, 6, 28),
    *max_pool("lenet pool2", 64, 16, 10),
    *max_pool("alexnet-small pool1", 64, 64, 32),
    *max_pool("alexnet-small pool2", 64, 192, 16),
    *max_pool("alexnet-small pool3", 64, 256, 8),
    *max_pool("alexnet 3x3 stride 2", 16, 64, 55, 3, 2),
    *max_pool("googlenet 3x3 stride 1", 16, 192, 28, 3, 1, 1),
    *avg_pool("lenet pool1", 64, 6, 28, 2, 2),
    *avg_pool("alexnet-small pool1", 64, 64, 32, 2, 2),
    *avg_pool("3x3 stride 2", 16, 64, 55, 3, 2),
    *adaptive(16, 256, 13, 6),
    *adaptive(16, 512, 7, 1),
]
