"""Max and average pooling over the last two dimensions, and their gradients, on plain arrays (C, H, W) or (N, C, H, W).

The rule for sizes and the meaning of every argument are PyTorch's. A gradient takes the arguments of its forward.
Next: csrc/cpu/max_pool.cpp and avg_pool.cpp for the loops, functional/pool.py for the ops with gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ._backend import Array, attempt, backend, empty
from ._check import contiguous, deliver, dims, floats, integer, launch, output, pair, shown, sizes

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "avg_pool2d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_taps_backward",
]

Size = int | Sequence[int]
LIMIT = 2**31  # of every size: the kernels multiply them in 64 bits


@lru_cache(maxsize=512)
def _planes(op: str, shape: tuple[int, ...], filled: int = 3) -> None:
    """Raise unless an array ``x`` of ``shape`` is made of planes and its last ``filled`` dimensions are not empty."""
    if len(shape) not in (3, 4):
        raise ValueError(f"{op}: 'x' must be (C, H, W) or (N, C, H, W), got {len(shape)} dimensions: shape {shape}")
    if 0 in shape[-filled:]:
        raise ValueError(f"{op}: 'x' has an empty dimension besides the batch: shape {shape}")


def _windows(
    op: str,
    shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The output's shape, and the numbers that the kernels take: kernel, stride, padding, dilation, each (h, w)."""
    kernel = pair(op, "kernel_size", kernel_size, least=1)
    steps = kernel if stride is None else pair(op, "stride", stride, least=1)
    pads = pair(op, "padding", padding, least=0)
    spread = pair(op, "dilation", dilation, least=1)
    return _checked_windows(op, shape, kernel, steps, pads, spread, bool(ceil_mode))


@lru_cache(maxsize=512)
def _checked_windows(
    op: str,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    steps: tuple[int, int],
    pads: tuple[int, int],
    spread: tuple[int, int],
    ceil_mode: bool,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sizes = []
    for x, k, s, p, d in zip(shape[-2:], kernel, steps, pads, spread):
        span = (k - 1) * d + 1
        if max(span, s) >= LIMIT:
            raise ValueError(f"{op}: kernel_size {k}, dilation {d} or stride {s} is beyond 2^31")
        if p > k // 2:
            raise ValueError(f"{op}: padding {p} is more than half of kernel_size {k}; pad the input first")
        room = x + 2 * p - span
        n = (room + s - 1 if ceil_mode else room) // s + 1
        if ceil_mode and (n - 1) * s >= x + p:
            n -= 1  # the last window must start inside the input or the padding before it
        if n < 1:
            raise ValueError(
                f"{op}: the window of {span} (kernel_size {k}, dilation {d}) does not fit the input of {x} "
                f"with padding {p}: input shape {shape}; use a smaller kernel_size"
            )
        if d > x and any((o * s - p) % d >= x for o in range(min(n, -(-p // s)))):
            raise ValueError(f"{op}: dilation {d} with padding {p} leaves a window without any of the input's {x}")
        sizes.append(n)
    return (*shape[:-2], *sizes), (*kernel, *steps, *pads, *spread)


def _gradient_shape(op: str, dy: Array, shape: Sequence[int], expected: tuple[int, ...]) -> None:
    if dy.shape != expected:
        raise ValueError(f"{op}: 'dy' is {dy.shape}, but pooling an input of {tuple(shape)} gives {expected}")


def _positions(op: str, name: str, x: Array, shape: tuple[int, ...], dtype: type) -> Array:
    if not hasattr(x, "flags") or x.shape != shape or x.dtype != dtype:
        got = f"{x.shape} {x.dtype}" if hasattr(x, "dtype") else type(x).__name__
        raise ValueError(f"{op}: '{name}' must be {shape} {np.dtype(dtype)} as the forward gave it, got {got}")
    return contiguous(x)


def max_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    return_taps: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """The maximum of each window; with ``return_indices`` also where it was, as int64 indices into the H x W plane.

    With ``return_taps`` instead its number in its window, row by row, as one byte, from which the gradient is faster;
    for windows of at most 256 elements.
    """
    if return_indices and return_taps:
        raise ValueError("max_pool2d: 'return_indices' and 'return_taps' exclude each other")
    y, places, _ = max_pool2d_and_windows(
        x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, return_taps, out
    )
    return y if places is None else (y, places)


def max_pool2d_and_windows(
    x: Array,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
    return_indices: bool = False,
    return_taps: bool = False,
    out: Array | None = None,
) -> tuple[Array, Any, tuple[int, ...]]:
    """max_pool2d; the indices or taps, if any; and the kernel's numbers, for ``taps_backward``."""
    op = "max_pool2d"
    (x,) = floats(op, x=x)
    _planes(op, x.shape)
    shape, numbers = _windows(op, x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    indices, taps = shape if return_indices else None, shape if return_taps else None
    if indices and x.shape[-2] * x.shape[-1] >= LIMIT:
        raise ValueError(f"{op}: indices of a plane of {x.shape[-2:]} do not fit 31 bits")
    if taps:
        _few(op, numbers)
    if out is None:
        made = attempt.max_pool2d(x, shape, indices, taps, *numbers)
        if made is not None:
            return (*made, numbers) if indices or taps else (made, None, numbers)
    y = output(op, out, shape, x, x)
    places = [None if p is None else empty(p, x, t) for p, t in ((indices, np.int64), (taps, np.uint8))]
    backend(op, x).max_pool2d(x, y, *places, *numbers)
    return deliver(y, out), next((p for p in places if p is not None), None), numbers


def _few(op: str, numbers: Sequence[int]) -> None:
    if numbers[0] * numbers[1] > 256:
        raise ValueError(
            f"{op}: taps are bytes, but a window of {numbers[0]} x {numbers[1]} has more than 256 elements"
        )


def max_pool2d_backward(dy: Array, indices: Array, shape: Sequence[int], *, out: Array | None = None) -> Array:
    """``dx`` of ``shape``: zero, plus every ``dy`` at its index. For ``adaptive_max_pool2d`` too."""
    op = "max_pool2d_backward"
    (dy,) = floats(op, dy=dy)
    dims(op, "dy", dy, (3, 4), "(C, H, W) or (N, C, H, W)")
    shape = sizes(op, "shape", shape)
    if len(shape) != dy.ndim or tuple(shape[:-2]) != dy.shape[:-2] or min(shape) < 0:
        raise ValueError(f"{op}: 'dy' is {dy.shape}, which no pooling of an input of {tuple(shape)} gives")
    indices = _positions(op, "indices", indices, dy.shape, np.int64)
    return launch(op, out, shape, (dy, indices))


def max_pool2d_taps_backward(
    dy: Array,
    taps: Array,
    shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """``dx`` of ``shape`` from the taps of ``max_pool2d``: zero, plus every ``dy`` at its maximum."""
    op = "max_pool2d_taps_backward"
    (dy,) = floats(op, dy=dy)
    shape = sizes(op, "shape", shape)
    expected, numbers = _windows(op, shape, kernel_size, stride, padding, dilation, ceil_mode)
    _few(op, numbers)
    _gradient_shape(op, dy, shape, expected)
    return taps_backward(dy, _positions(op, "taps", taps, dy.shape, np.uint8), shape, numbers, out)


def taps_backward(
    dy: Array, taps: Array, shape: tuple[int, ...], numbers: tuple[int, ...], out: Array | None = None
) -> Array:
    """max_pool2d_taps_backward, of what ``max_pool2d_and_windows`` gave."""
    op = "max_pool2d_taps_backward"
    (dy,) = floats(op, dy=dy)
    return launch(op, out, shape, (dy, taps), *numbers)


def _average(
    op: str,
    shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sizes, numbers = _windows(op, shape, kernel_size, stride, padding, 1, ceil_mode)
    divisor = 0 if divisor_override is None else integer(op, "divisor_override", divisor_override)
    if divisor_override is not None and (divisor == 0 or abs(divisor) >= LIMIT):
        raise ValueError(f"{op}: 'divisor_override' must be a number other than 0 (or None), got {divisor_override}")
    return sizes, (*numbers[:6], int(bool(count_include_pad)), divisor)


def avg_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """The sum of each window over its size (in the padded input, or without padding), or over ``divisor_override``."""
    op = "avg_pool2d"
    (x,) = floats(op, x=x)
    _planes(op, x.shape)
    shape, numbers = _average(op, x.shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return launch(op, out, shape, (x,), *numbers)


def avg_pool2d_backward(
    dy: Array,
    shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """``dx`` of ``shape``: every ``dy``, divided as the forward did, given to each element of its window."""
    op = "avg_pool2d_backward"
    (dy,) = floats(op, dy=dy)
    shape = sizes(op, "shape", shape)
    expected, numbers = _average(
        op, shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
    _gradient_shape(op, dy, shape, expected)
    return launch(op, out, shape, (dy,), *numbers)


def _adaptive(op: str, x: Array, output_size: int | Sequence[int | None] | None) -> tuple[int, ...]:
    """The output's shape; None keeps the input's size."""
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * 2
    if len(sizes) != 2:
        raise ValueError(f"{op}: 'output_size' must be one size or two (height, width), got {shown(output_size)}")
    height, width = pair(op, "output_size", [n if o is None else o for n, o in zip(x.shape[-2:], sizes)], least=0)
    if max(height, width) >= LIMIT:
        raise ValueError(f"{op}: 'output_size' {shown(output_size)} is beyond 2^31")
    return (*x.shape[:-2], height, width)


def _even(shape: Sequence[int], outputs: Sequence[int]) -> tuple[int, int] | None:
    """The kernel size (and stride) if adaptive windows are all of one size and lie side by side."""
    (h, w), (oh, ow) = shape[-2:], outputs[-2:]
    return (h // oh, w // ow) if oh and ow and h % oh == 0 and w % ow == 0 else None


def adaptive_max_pool2d(
    x: Array,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """The maxima of ``output_size`` windows; window o covers floor(o H / OH) to ceil((o + 1) H / OH)."""
    op = "adaptive_max_pool2d"
    (x,) = floats(op, x=x)
    _planes(op, x.shape)
    shape = _adaptive(op, x, output_size)
    kernel = _even(x.shape, shape) if x.size else None
    if kernel is not None:
        return max_pool2d(x, kernel, return_indices=return_indices, out=out)
    y = output(op, out, shape, x, x)
    indices = empty(shape, x, np.int64)
    backend(op, x).adaptive_max_pool2d(x, y, indices)
    y = deliver(y, out)
    return (y, indices) if return_indices else y


def adaptive_avg_pool2d(x: Array, output_size: int | Sequence[int | None] | None, *, out: Array | None = None) -> Array:
    """The averages of ``output_size`` windows; window o covers floor(o H / OH) to ceil((o + 1) H / OH)."""
    op = "adaptive_avg_pool2d"
    (x,) = floats(op, x=x)
    _planes(op, x.shape, 2)
    shape = _adaptive(op, x, output_size)
    kernel = _even(x.shape, shape) if x.size else None
    if kernel is not None:
        return avg_pool2d(x, kernel, out=out)
    y = output(op, out, shape, x, x)
    backend(op, x).adaptive_avg_pool2d(x, y)
    return deliver(y, out)


def adaptive_avg_pool2d_backward(dy: Array, shape: Sequence[int], *, out: Array | None = None) -> Array:
    """``dx`` of ``shape``: every ``dy`` over its window's size, given to each element of the window."""
    op = "adaptive_avg_pool2d_backward"
    (dy,) = floats(op, dy=dy)
    dims(op, "dy", dy, (3, 4), "(C, H, W) or (N, C, H, W)")
    shape = sizes(op, "shape", shape)
    if len(shape) != dy.ndim or tuple(shape[:-2]) != dy.shape[:-2] or min(shape[-2:]) < 1:
        raise ValueError(f"{op}: 'dy' is {dy.shape}, which no pooling of an input of {tuple(shape)} gives")
    kernel = _even(shape, dy.shape) if dy.size else None
    if kernel is not None:
        return avg_pool2d_backward(dy, shape, kernel, out=out)
    dx = output(op, out, tuple(shape), dy, dy)
    backend(op, dy).adaptive_avg_pool2d_backward(dy, dx)
    return deliver(dx, out)
