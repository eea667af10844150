"""Dropout of elements and of whole maps; a mask is a stream of its own (fastnn.random) and is never stored."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import T, Tensor, apply
from ..kernels._backend import Array
from ..kernels._check import expect_arrays, real
from ..random import next_stream

__all__ = ["dropout", "dropout2d"]


def _dropout(op: str, input: T, p: float, training: bool, inplace: bool, maps: bool) -> T:
    expect_arrays(op, input=input)
    p = real(op, "p", p)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{op}: p must be in [0, 1], got {p}")
    if maps and input.ndim < 2:
        raise ValueError(f"{op}: 'input' must be (N, C, ...), got shape {input.shape}")
    if not training or p == 0:
        return input
    if inplace and isinstance(input, Tensor):
        return input.change(op, lambda x: _dropout(op, x, p, training, False, maps))
    seed, stream = next_stream()

    def forward(x: Array) -> Any:
        group = max(1, x.size // max(1, x.shape[0] * x.shape[1])) if maps else 1
        y = kernels.dropout(x, p, seed, stream, group, out=x if inplace else None)
        return y, lambda dy, need: (kernels.dropout(dy, p, seed, stream, group),)

    return apply(op, forward, input)


def dropout(input: T, p: float = 0.5, training: bool = True, inplace: bool = False) -> T:
    """Each element set to 0 with probability ``p``, the others divided by ``1 - p``; the input itself if not training.

    Any shape. ``inplace`` writes the result into the input and returns it. Source: Srivastava et al. 2014.
    """
    return _dropout("dropout", input, p, training, inplace, maps=False)


def dropout2d(input: T, p: float = 0.5, training: bool = True, inplace: bool = False) -> T:
    """Each map ``input[n, c]`` set to 0 as a whole with probability ``p``, the others divided by ``1 - p``.

    ``input`` is (N, C, H, W); as in PyTorch, the first two dimensions of any other shape name the maps too.
    """
    return _dropout("dropout2d", input, p, training, inplace, maps=True)
