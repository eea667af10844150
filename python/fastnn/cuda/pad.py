"""Padding: host functions of csrc/cuda/pad.cu. Tables come from kernels/pad.py in main memory; here they are moved to
the device, once for each table, and turned round for the gradient. Next: shapes.py."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .launch import ctype, kernel
from .shapes import cut, divider, grid, width

if TYPE_CHECKING:
    from .device import Device


@lru_cache(maxsize=64)
def _table(gpu: Device, index: bytes) -> Any:
    """The table on the device."""
    with gpu.current():
        return gpu.xp.asarray(np.frombuffer(index, np.int64).astype(np.int32))


@lru_cache(maxsize=64)
def _sources(gpu: Device, index: bytes, size: int) -> tuple[Any, Any]:
    """Where each entry's sources begin (and the end of all), and the sources, which rise for each entry."""
    table = np.frombuffer(index, np.int64)
    order = np.argsort(table, kind="stable")
    begins = np.searchsorted(table[order], np.arange(size + 1))
    with gpu.current():
        return gpu.xp.asarray(begins.astype(np.int32)), gpu.xp.asarray(order.astype(np.int32))


def _launches(op: str, x: Any, y: Any) -> Any:
    """For each launch: the arguments' parts, the packs' width and ``struct PadAxis`` of the walk over ``y``."""
    outer, rows, inner = y.shape
    wide = width(inner, x, y)
    packs = inner // wide
    for i, j in cut(op, outer, max(rows, x.shape[1]) * inner):
        total = (j - i) * rows * packs
        yield x[i:j], y[i:j], f"{ctype(x.dtype)}, {wide}", (total, rows, packs, divider(rows), divider(packs))


@kernel(host=("index",))
def pad_axis(gpu: Device, x: Any, index: Any, y: Any, value: float) -> None:
    table = _table(gpu, index.tobytes())
    for part, out, form, p in _launches("pad", x, y):
        gpu.launch("pad", f"pad_axis<{form}>", *grid(p[0]), part, table, out, p, x.shape[1], value)


@kernel(host=("index",))
def pad_axis_backward(gpu: Device, dy: Any, index: Any, dx: Any) -> None:
    begins, sources = _sources(gpu, index.tobytes(), dx.shape[1])
    for part, out, form, p in _launches("pad_backward", dy, dx):
        gpu.launch("pad", f"pad_axis_backward<{form}>", *grid(p[0]), part, begins, sources, out, p, dy.shape[1])
