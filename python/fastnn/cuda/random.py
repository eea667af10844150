"""Random numbers and dropout, the CPU's: host functions of csrc/cuda/random.cu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import blocks, ctype, kernel

if TYPE_CHECKING:
    from .device import Device


def _fill(gpu: Device, expression: str, y: Any, *numbers: float) -> None:
    gpu.launch("random", expression, blocks(y.size, 256, 16 // y.itemsize), 256, y, y.size, *numbers)


@kernel
def random_bits(gpu: Device, bits: Any, seed: int, stream: int) -> None:
    _fill(gpu, "random_bits", bits, seed, stream)


@kernel
def uniform(gpu: Device, y: Any, low: float, high: float, seed: int, stream: int) -> None:
    _fill(gpu, f"uniform<{ctype(y.dtype)}>", y, low, high - low, high, seed, stream)


@kernel
def normal(gpu: Device, y: Any, mean: float, std: float, seed: int, stream: int) -> None:
    _fill(gpu, f"normal<{ctype(y.dtype)}>", y, mean, std, seed, stream)


@kernel
def dropout(gpu: Device, x: Any, y: Any, p: float, seed: int, stream: int, group: int) -> None:
    t = ctype(x.dtype)
    numbers = (1 / (1 - p) if p < 1 else 0.0, int((1 - p) * 2**32), seed, stream)
    if group == 1:
        gpu.launch("random", f"dropout<{t}>", blocks(x.size, 256, 4), 256, x, y, x.size, *numbers)
    else:
        gpu.launch("random", f"dropout_groups<{t}>", blocks(x.size, 256, 8), 256, x, y, x.size, group, *numbers)
