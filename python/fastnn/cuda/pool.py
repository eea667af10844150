"""Pooling: host functions of csrc/cuda/max_pool.cu and avg_pool.cu.

They choose between a thread and a warp for a window, and the 2x2 and 3x3 windows of the usual networks from the rest.
Next: shapes.py; csrc/cuda/pool.cuh for the struct that ``_geometry`` fills.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .launch import ctype, kernel
from .shapes import cut, divider, grid

if TYPE_CHECKING:
    from .device import Device

WARP = 32
LONG = 32  # elements of a window from which on a warp takes it
SUM_BYTES = 40 * 1024  # of dx that max_pool2d_backward holds in shared memory; max_pool.cu has the same number
BLOCKS = 512  # that fill a large device


@lru_cache(maxsize=512)
def _geometry(
    planes: int, sides: tuple[int, ...], window: tuple[int, ...], walked: tuple[int, int]
) -> tuple[tuple[int, ...], int]:
    """``struct Pool``: a count, (in_h, in_w, out_h, out_w), kernel, stride, padding, dilation, divisors; and the count,
    how many there are of what threads have one each of, whose sides in a plane are ``walked``."""
    h, w = walked
    return (planes * h * w, *sides, *window, divider(h), divider(w)), planes * h * w


def _launches(
    op: str, x: Any, y: Any, arrays: tuple[Any, ...]
) -> Iterator[tuple[int, tuple[int, ...], tuple[Any, ...]]]:
    """For each launch: how many planes, the sides of ``x``'s and ``y``'s, and the parts of ``arrays``."""
    sides = (*x.shape[-2:], *y.shape[-2:])
    x_size, y_size = sides[0] * sides[1], sides[2] * sides[3]
    planes = x.size // x_size if x_size else 0
    for begin, end in cut(op, planes, max(x_size, y_size)):
        if end - begin == planes:
            yield planes, sides, arrays
        else:
            flat = (a if a is None else a.reshape(planes, *a.shape[-2:])[begin:end] for a in arrays)
            yield end - begin, sides, tuple(flat)


def _known(window: tuple[int, ...]) -> str:
    """KERNEL and STRIDE of a window for which there is a kernel of its own, "0, 0" for others."""
    kh, kw, sh, sw, _, _, dh, dw = window
    return f"{kh}, {sh}" if kh == kw and sh == sw == 2 and dh == dw == 1 and kh in (2, 3) else "0, 0"


def _lanes(size: int) -> int:
    return WARP if size >= LONG else 1


def _form(window: tuple[int, ...], sides: tuple[int, ...]) -> tuple[str, int]:
    """The template arguments after T for a fixed window, and how many lanes an output takes."""
    known = _known(window)
    lanes = 1 if known != "0, 0" else _lanes(min(window[0], sides[0]) * min(window[1], sides[1]))
    return f"{known}, {lanes}", lanes


def _pairs(array: Any) -> str:
    """Whether two neighbours of a row may be moved at once."""
    return "true" if array.shape[-1] % 2 == 0 and array.data.ptr % (2 * array.itemsize) == 0 else "false"


PAIR = (2, 2, 2, 2, 0, 0, 1, 1)


def _pair_windows(window: tuple[int, ...], sides: tuple[int, ...]) -> bool:
    """Whether the windows are 2x2, side by side and whole."""
    return window == PAIR and sides[2:] == (sides[0] // 2, sides[1] // 2)


@kernel
def max_pool2d(gpu: Device, x: Any, y: Any, indices: Any, taps: Any, *window: int) -> None:
    t = ctype(x.dtype)
    for planes, sides, part in _launches("max_pool2d", x, y, (x, y, indices, taps)):
        form, lanes = _form(window, sides)
        p, n = _geometry(planes, sides, window, sides[2:])
        if taps is not None and indices is None and _pair_windows(window, sides):
            gpu.launch("max_pool", f"max_pool2x2<{t}, {_pairs(x)}>", *grid(n), part[0], part[1], part[3], p)
        else:
            gpu.launch("max_pool", f"max_pool2d<{t}, {form}>", *grid(n * lanes), *part, p)


def _cells(sides: tuple[int, ...]) -> tuple[int, int]:
    return (sides[0] + 1) // 2, (sides[1] + 1) // 2


@kernel
def max_pool2d_taps_backward(gpu: Device, dy: Any, taps: Any, dx: Any, *window: int) -> None:
    t = ctype(dx.dtype)
    for planes, sides, part in _launches("max_pool2d_taps_backward", dx, dy, (dy, taps, dx)):
        if _pair_windows(window, sides):
            p, n = _geometry(planes, sides, window, _cells(sides))
            gpu.launch("max_pool", f"max_pool2x2_backward<{t}, {_pairs(dx)}>", *grid(n), *part, p)
        elif _known(window) == "3, 2" and window[4] == window[5]:
            p, n = _geometry(planes, sides, window, _cells(sides))
            gpu.launch("max_pool", f"max_pool3x3_backward<{t}, {window[4]}, {_pairs(dx)}>", *grid(n), *part, p)
        else:
            p, n = _geometry(planes, sides, window, sides[:2])
            strides = divider(window[2]), divider(window[3])
            gpu.launch("max_pool", f"max_pool2d_taps_backward<{t}>", *grid(n), *part, p, *strides)


@kernel
def max_pool2d_backward(gpu: Device, dy: Any, indices: Any, dx: Any) -> None:
    size = dx.shape[-2] * dx.shape[-1]
    outputs = dy.shape[-2] * dy.shape[-1]
    planes = dx.size // size if size else 0
    if planes == 0:
        return
    room = SUM_BYTES // dx.itemsize
    bands = -(-size // room)
    band = -(-size // bands)
    group = max(1, min(room // size, planes // BLOCKS, 2**24 // max(outputs, 1)))
    blocks = -(-planes // group), bands
    threads = min(512, max(WARP, -(-group * outputs // WARP) * WARP))
    numbers = (planes, size, outputs, band, group, divider(outputs))
    gpu.launch("max_pool", f"max_pool2d_backward<{ctype(dx.dtype)}>", blocks, threads, dy, indices, dx, *numbers)


WHOLE = (1, 1, 1, 1, 0, 0, 1, 1)  # a window that adaptive pooling does not look at


@kernel
def adaptive_max_pool2d(gpu: Device, x: Any, y: Any, indices: Any) -> None:
    lanes = _lanes(x.size // max(y.size, 1))
    for planes, sides, part in _launches("adaptive_max_pool2d", x, y, (x, y, indices)):
        p, n = _geometry(planes, sides, WHOLE, sides[2:])
        gpu.launch("max_pool", f"adaptive_max_pool2d<{ctype(x.dtype)}, {lanes}>", *grid(n * lanes), *part, p)


@kernel
def avg_pool2d(gpu: Device, x: Any, y: Any, *numbers: int) -> None:
    window, counted = (*numbers[:6], 1, 1), numbers[6:]
    for planes, sides, part in _launches("avg_pool2d", x, y, (x, y)):
        form, lanes = _form(window, sides)
        p, n = _geometry(planes, sides, window, sides[2:])
        gpu.launch("avg_pool", f"avg_pool2d<{ctype(x.dtype)}, {form}>", *grid(n * lanes), *part, p, *counted)


@kernel
def avg_pool2d_backward(gpu: Device, dy: Any, dx: Any, *numbers: int) -> None:
    window, counted = (*numbers[:6], 1, 1), numbers[6:]
    t = ctype(dx.dtype)
    for planes, sides, part in _launches("avg_pool2d_backward", dx, dy, (dy, dx)):
        if _pair_windows(window, sides):
            p, n = _geometry(planes, sides, window, _cells(sides))
            name = f"avg_pool2x2_backward<{t}, {_pairs(dx)}>"
            gpu.launch("avg_pool", name, *grid(n), *part, p, counted[1] or 4)
        else:
            p, n = _geometry(planes, sides, window, sides[:2])
            strides = divider(window[2]), divider(window[3])
            gpu.launch("avg_pool", f"avg_pool2d_backward<{t}>", *grid(n), *part, p, *strides, *counted)


@kernel
def adaptive_avg_pool2d(gpu: Device, x: Any, y: Any) -> None:
    lanes = _lanes(x.size // max(y.size, 1))
    for planes, sides, part in _launches("adaptive_avg_pool2d", x, y, (x, y)):
        p, n = _geometry(planes, sides, WHOLE, sides[2:])
        gpu.launch("avg_pool", f"adaptive_avg_pool2d<{ctype(x.dtype)}, {lanes}>", *grid(n * lanes), *part, p)


@kernel
def adaptive_avg_pool2d_backward(gpu: Device, dy: Any, dx: Any) -> None:
    for planes, sides, part in _launches("adaptive_avg_pool2d_backward", dx, dy, (dy, dx)):
        p, n = _geometry(planes, sides, WHOLE, sides[:2])
        gpu.launch("avg_pool", f"adaptive_avg_pool2d_backward<{ctype(dx.dtype)}>", *grid(n), *part, p)
