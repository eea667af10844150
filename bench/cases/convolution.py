"""Convolutions: LeNet's, AlexNet-small's (batch 64), AlexNet's, GoogLeNet's and MobileNet's layers (batch 16).

Each layer three times: forward, gradient of the input (dx; not of a first layer, whose input wants none), gradient of
the weight (dw).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastnn import functional as F
from fastnn import kernels

from .case import Call, Calls, Case, compare, layouts


def conv(
    name: str,
    n: int,
    c: int,
    size: int,
    k: int,
    r: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    first: bool = False,
) -> Iterator[Case]:
    """One layer, batch n, c to k channels, r x r kernels."""
    out = (size + 2 * padding - dilation * (r - 1) - 1) // stride + 1
    x_shape, w_shape, y_shape = (n, c, size, size), (k, c // groups, r, r), (n, k, out, out)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    flops = 2.0 * n * k * out * out * (c // groups) * r * r

    def forward(t: Any, x: Any, w: Any, b: Any) -> Calls:
        return layouts(t, lambda x, w, b: lambda: t.nn.functional.conv2d(x, w, b, **options), x, w, b)

    def backward(mask: list[bool]) -> Any:
        fixed = ([stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], groups, mask)

        def theirs(t: Any, dy: Any, x: Any, w: Any) -> Calls:
            def make(dy: Any, x: Any, w: Any) -> Call:
                return lambda: t.ops.aten.convolution_backward(dy, x, w, None, *fixed)

            return layouts(t, make, dy, x, w)

        return theirs

    yield compare(
        "conv2d",
        f"{name} forward",
        [x_shape, w_shape, (k,)],
        lambda x, w, b: lambda: kernels.conv2d(x, w, b, **options),
        forward,
        flops=flops,
    )
    if not first:
        yield compare(
            "conv2d",
            f"{name} dx",
            [y_shape, x_shape, w_shape],
            lambda dy, x, w: lambda: kernels.conv2d_backward_input(dy, w, x_shape, **options),
            backward([True, False, False]),
            flops=flops,
        )
    yield compare(
        "conv2d",
        f"{name} dw",
        [y_shape, x_shape, w_shape],
        lambda dy, x, w: lambda: kernels.conv2d_backward_weight(dy, x, w_shape, **options),
        backward([False, True, False]),
        flops=flops,
    )


def bias(n: int, k: int, size: int) -> Case:
    """The gradient of a convolution's bias: a sum over images and positions."""
    return compare(
        "conv2d",
        f"bias {n}x{k}x{size}x{size} db",
        [(n, k, size, size)],
        lambda dy: lambda: kernels.conv2d_backward_bias(dy),
        lambda t, dy: lambda: dy.sum((0, 2, 3)),
        lambda dy: lambda: dy.sum((0, 2, 3)),
        bytes=4.0 * n * k * size * size,
    )


def unfolded(n: int, c: int, size: int, r: int, padding: int) -> Iterator[Case]:
    """Patches to columns and back."""
    columns = (n, c * r * r, (size + 2 * padding - r + 1) ** 2)
    moved = 4.0 * n * (c * size * size + columns[1] * columns[2])
    yield compare(
        "conv2d",
        f"unfold {n}x{c}x{size}x{size}",
        [(n, c, size, size)],
        lambda x: lambda: F.unfold(x, r, padding=padding),
        lambda t, x: lambda: t.nn.functional.unfold(x, r, padding=padding),
        bytes=moved,
    )
    yield compare(
        "conv2d",
        f"fold {n}x{c}x{size}x{size}",
        [columns],
        lambda x: lambda: F.fold(x, size, r, padding=padding),
        lambda t, x: lambda: t.nn.functional.fold(x, size, r, padding=padding),
        bytes=moved,
    )


ALEXNET_SMALL = ((3, 32, 64), (64, 16, 192), (192, 8, 384), (384, 8, 256), (256, 8, 256))
ALEXNET = (  # torchvision's: channels, size, maps, kernel, stride, padding
    (3, 224, 64, 11, 4, 2),
    (64, 27, 192, 5, 1, 2),
    (192, 13, 384, 3, 1, 1),
    (384, 13, 256, 3, 1, 1),
    (256, 13, 256, 3, 1, 1),
)

CASES = [
    *conv("lenet conv1", 64, 1, 28, 6, 5, padding=2, first=True),
    *conv("lenet conv2", 64, 6, 14, 16, 5),
    *(
        case
        for i, (c, size, k) in enumerate(ALEXNET_SMALL, 1)
        for case in conv(f"alexnet-small conv{i}", 64, c, size, k, 3, padding=1, first=i == 1)
    ),
    *(
        case
        for i, (c, size, k, r, stride, padding) in enumerate(ALEXNET, 1)
        for case in conv(f"alexnet conv{i}", 16, c, size, k, r, stride, padding, first=i == 1)
    ),
    *conv("alexnet conv2 in 2 groups", 16, 96, 27, 256, 5, padding=2, groups=2),
    *conv("googlenet 7x7 stride 2", 16, 3, 112, 64, 7, 2, 3, first=True),
    *conv("googlenet 1x1 at 28", 16, 192, 28, 64, 1),
    *conv("googlenet 3x3 at 28", 16, 96, 28, 128, 3, padding=1),
    *conv("googlenet 5x5 at 28", 16, 16, 28, 32, 5, padding=2),
    *conv("googlenet 1x1 at 14", 16, 480, 14, 192, 1),
    *conv("googlenet 3x3 at 7", 16, 160, 7, 320, 3, padding=1),
    *conv("resnet 3x3 stride 2", 16, 64, 56, 128, 3, 2, 1),
    *conv("resnet 3x3 at 56", 16, 64, 56, 64, 3, padding=1),
    *conv("3x3 dilated by 2", 16, 64, 28, 64, 3, padding=2, dilation=2),
    *conv("mobilenet depthwise", 16, 128, 28, 128, 3, padding=1, groups=128),
    *conv("mobilenet depthwise stride 2", 16, 128, 28, 128, 3, 2, 1, groups=128),
    *conv("one image, 64 maps of 56", 1, 64, 56, 64, 3, padding=1),
    bias(64, 64, 32),
    *unfolded(16, 64, 28, 3, 1),
]
