"""Padding: forward and gradient; the loops are in kernels/pad.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import kernels
from ..autograd import T, apply
from ..kernels._backend import Array
from ..kernels._check import choice, expect_arrays
from ..kernels.pad import MODES

__all__ = ["pad"]


def pad(input: T, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> T:
    """``input`` with elements added around it: ``pad`` holds two numbers per axis, last axis first.

    ``F.pad(x, (1, 2))`` adds one column before and two after; ``(1, 2, 3, 4)`` rows as well. ``mode`` is constant (with
    ``value``, default 0; negative numbers crop), reflect, replicate or circular (the last 1, 2 or 3 axes).
    """
    choice("pad", "mode", mode, MODES)
    if value is not None and mode != "constant":
        raise ValueError(f"pad: 'value' belongs to mode 'constant', got mode {mode!r} with value {value}")

    expect_arrays("pad", input=input)

    def forward(x: Array) -> Any:
        shape = x.shape
        y = kernels.pad(x, pad, mode=mode, value=0.0 if value is None else value)
        return y, lambda dy, need: (kernels.pad_backward(dy, shape, pad, mode=mode),)

    return apply("pad", forward, input)
