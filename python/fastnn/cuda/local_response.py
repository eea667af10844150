"""Local response normalisation: host functions of csrc/cuda/local_response.cu, which keep AlexNet's windows of five
channels in registers and read others again for each channel. Next: shapes.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import ctype, kernel
from .shapes import LIMIT, divider, grid

if TYPE_CHECKING:
    from .device import Device

KNOWN = 5  # the window that has a kernel of its own
MANY = 1 << 17  # threads from which on each may walk far: fewer channels are read twice


def _response(op: str, x: Any, before: int, after: int) -> tuple[tuple[int, ...], int]:
    """``struct Response``, and how many threads walk."""
    n, c, s = x.shape
    if max(2 * c, c * s) >= LIMIT:
        raise ValueError(f"{op}: {c} channels of {s} elements are more than CUDA kernels take, {LIMIT - 1} elements")
    chunk = 32 if n * s * -(-c // 32) >= MANY else 8
    chunks = -(-c // chunk)
    walks = n * chunks * s
    return (c, s, min(before, c), min(after, c), walks, chunk, divider(s), divider(chunks)), walks


@kernel
def local_response_norm(gpu: Device, x: Any, y: Any, s: Any, size: int, alpha: float, beta: float, k: float) -> None:
    p, walks = _response("local_response_norm", x, size // 2, (size - 1) // 2)
    name = f"local_response_norm<{ctype(x.dtype)}, {size if size == KNOWN else 0}>"
    gpu.launch("local_response", name, *grid(walks), x, y, s, p, alpha / size, beta, k)


@kernel
def local_response_norm_backward(
    gpu: Device, dy: Any, x: Any, s: Any, dx: Any, size: int, alpha: float, beta: float
) -> None:
    # Who looks at a channel: the window turned round.
    p, walks = _response("local_response_norm_backward", x, (size - 1) // 2, size // 2)
    name = f"local_response_norm_backward<{ctype(x.dtype)}, {size if size == KNOWN else 0}>"
    gpu.launch("local_response", name, *grid(walks), dy, x, s, dx, p, 2 * alpha * beta / size, beta)
