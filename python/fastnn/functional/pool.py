"""Pooling: forward and gradient of each on one screen; sizes and loops are in kernels/pool.py and csrc/cpu/pool.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from .. import kernels
from ..autograd import T, Tensor, apply, is_grad_enabled
from ..kernels._backend import Array
from ..kernels._check import expect_arrays
from ..kernels.pool import max_pool2d_and_windows, taps_backward

__all__ = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d"]

Size = int | Sequence[int]


def _recorded(x: Any) -> bool:
    return isinstance(x, Tensor) and x._requires_grad and is_grad_enabled()


def _few_elements(kernel_size: Any) -> bool:
    """Whether an element's number in its window fits a byte."""
    if type(kernel_size) is int:
        return kernel_size <= 16
    try:
        height, width = kernel_size if isinstance(kernel_size, (tuple, list)) else (kernel_size, kernel_size)
        return bool(height * width <= 256)
    except (TypeError, ValueError):
        return False  # max_pool2d says what is wrong


@overload
def max_pool2d(
    input: T,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> T: ...
@overload
def max_pool2d(
    input: T,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[T, T]: ...
def max_pool2d(
    input: T,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of the last two dimensions, ``y[i, j] = max x[i s - p + k d, j s - p + l d]``.

    ``input`` is (N, C, H, W) or (C, H, W). The output's sides are ``(H + 2 padding - dilation (kernel_size - 1) - 1) /
    stride + 1``, rounded down, or up with ``ceil_mode`` (a last window that would start behind the input is dropped).
    ``stride=None`` means ``kernel_size``. With ``return_indices`` also each maximum's int64 index into its H x W plane.
    Of equal values the first wins; NaN wins over every number. Raises ValueError if the padding is more than half
    of ``kernel_size`` or no window fits.
    """
    recorded = _recorded(input)
    by_taps = recorded and not return_indices and _few_elements(kernel_size)
    by_indices = return_indices or (recorded and not by_taps)
    arguments = (kernel_size, stride, padding, dilation, ceil_mode, by_indices, by_taps)

    def forward(x: Array) -> Any:
        y, places, window = max_pool2d_and_windows(x, *arguments)
        shape = x.shape
        if by_taps:
            return y, lambda dy, need: (taps_backward(dy, places, shape, window),)
        vjp = lambda dy, need: (kernels.max_pool2d_backward(dy, places, shape),)  # noqa: E731
        return (y, vjp, places) if return_indices else (y, vjp)

    return apply("max_pool2d", forward, input)


def avg_pool2d(
    input: T,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> T:
    """Average over windows of the last two dimensions of (N, C, H, W) or (C, H, W); sizes as in ``max_pool2d``.

    A window's sum is divided by its size in the padded input, without the padding if ``count_include_pad=False``, or by
    ``divisor_override``.
    """
    arguments = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)

    expect_arrays("avg_pool2d", input=input)

    def forward(x: Array) -> Any:
        shape = x.shape
        y = kernels.avg_pool2d(x, *arguments)
        return y, lambda dy, need: (kernels.avg_pool2d_backward(dy, shape, *arguments),)

    return apply("avg_pool2d", forward, input)


@overload
def adaptive_max_pool2d(
    input: T, output_size: int | Sequence[int | None] | None, return_indices: Literal[False] = False
) -> T: ...
@overload
def adaptive_max_pool2d(
    input: T, output_size: int | Sequence[int | None] | None, return_indices: Literal[True]
) -> tuple[T, T]: ...
def adaptive_max_pool2d(input: T, output_size: int | Sequence[int | None] | None, return_indices: bool = False) -> Any:
    """Maximum over ``output_size`` windows that cover the last two dimensions of (N, C, H, W) or (C, H, W).

    Window o of OH covers ``floor(o H / OH)`` up to ``ceil((o + 1) H / OH)``; a size of None keeps the input's. With
    ``return_indices`` also each maximum's int64 index into its H x W plane.
    """

    expect_arrays("adaptive_max_pool2d", input=input)

    def forward(x: Array) -> Any:
        shape = x.shape
        if not return_indices and not _recorded(input):
            return kernels.adaptive_max_pool2d(x, output_size), None
        y, indices = kernels.adaptive_max_pool2d(x, output_size, return_indices=True)

        def vjp(dy: Array, need: Sequence[bool]) -> tuple[Array]:
            return (kernels.max_pool2d_backward(dy, indices, shape),)

        return (y, vjp, indices) if return_indices else (y, vjp)

    return apply("adaptive_max_pool2d", forward, input)


def adaptive_avg_pool2d(input: T, output_size: int | Sequence[int | None] | None) -> T:
    """Average over ``output_size`` windows that cover the last two dimensions of (N, C, H, W) or (C, H, W).

    Window o of OH covers ``floor(o H / OH)`` up to ``ceil((o + 1) H / OH)``; a size of None keeps the input's.
    Size 1 is global average pooling.
    """

    expect_arrays("adaptive_avg_pool2d", input=input)

    def forward(x: Array) -> Any:
        shape = x.shape
        y = kernels.adaptive_avg_pool2d(x, output_size)
        return y, lambda dy, need: (kernels.adaptive_avg_pool2d_backward(dy, shape),)

    return apply("adaptive_avg_pool2d", forward, input)
