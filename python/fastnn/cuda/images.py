"""What training asks of a batch on a GPU: csrc/cuda/images.cu, as functions of arrays there that return new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import blocks, ctype

if TYPE_CHECKING:
    from .device import Device

__all__ = ["place_of_target", "windows"]

THREADS = 256


def windows(
    gpu: Device,
    images: Any,
    size: tuple[int, int],
    *,
    top: Any = None,
    left: Any = None,
    flip: Any = None,
    padding: tuple[int, int] = (0, 0),
    fill: float = 0,
) -> Any:
    """A window of each image (B, C, H, W) with a border of ``fill`` around it; mirrored where ``flip``.

    ``top`` and ``left`` (int32) and ``flip`` (uint8) hold a number for each image; None: 0 for all.
    """
    B, C, H, W = images.shape
    y = gpu.empty((B, C, *size), images.dtype)
    if y.size:
        args = (images, top, left, flip, y, (y.size, C, H, W, *size, *padding), images.dtype.type(fill).item())
        gpu.launch("images", f"windows<{ctype(images.dtype)}>", blocks(y.size, THREADS), THREADS, *args)
    return y


def place_of_target(gpu: Device, output: Any, target: Any) -> Any:
    """How many entries of each row of ``output`` (N, classes) are ahead of the target's (int64): int32 (N,).

    Of equal entries, that of the lower class is ahead. The largest int where the row holds a NaN, or
    the target is no class.
    """
    place = gpu.empty(target.shape, "int32")
    if place.size:
        args = (output, target, place, *output.shape)
        grid = -(-place.size * 32 // THREADS)  # a warp for each row: the kernel has no loop over them
        gpu.launch("images", f"place_of_target<{ctype(output.dtype)}>", grid, THREADS, *args)
    return place
