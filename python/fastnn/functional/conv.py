"""Convolution, unfold (im2col) and fold (col2im), each with its gradient; the loops are in csrc/cpu/conv*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import kernels
from ..autograd import T, apply
from ..kernels._backend import Array
from ..kernels._check import expect_arrays
from ..kernels.conv import conv2d_and_geometry, conv2d_backward

__all__ = ["conv1d", "conv2d", "fold", "unfold"]

Pair = int | Sequence[int]


def conv2d(
    input: T,
    weight: T,
    bias: T | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> T:
    """2-d convolution: ``y[n,k] = bias[k] + sum over c of weight[k,c] * input[n,c]`` (cross-correlation).

    ``input`` (N, C, H, W) or (C, H, W), ``weight`` (K, C/groups, R, S), ``bias`` (K,). ``padding`` is a number, a pair,
    ``"same"`` (stride 1) or ``"valid"``. The result is (N, K, Ho, Wo) with
    ``Ho = (H + 2 padding - dilation (R - 1) - 1) // stride + 1``. Raises ValueError where the shapes do not fit.
    """
    return apply("conv2d", _conv2d_of(stride, padding, dilation, groups), input, weight, bias)


def _conv2d_of(stride: Pair, padding: Pair | str, dilation: Pair, groups: int) -> Any:
    def forward(x: Array, w: Array, b: Array | None) -> Any:
        y, geometry = conv2d_and_geometry(x, w, b, stride, padding, dilation, groups)
        return y, lambda dy, need: conv2d_backward(dy, x, w, need, geometry)

    return forward


def conv1d(
    input: T,
    weight: T,
    bias: T | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> T:
    """1-d convolution of ``input`` (N, C, L) or (C, L) with ``weight`` (K, C/groups, S): conv2d at height 1.

    ``bias`` is (K,); ``padding`` is a number, ``"same"`` (stride 1) or ``"valid"``; the result is (N, K, Lo).
    """
    expect_arrays("conv1d", input=input, weight=weight)
    if input.ndim not in (2, 3) or weight.ndim != 3:
        raise ValueError(
            f"conv1d: 'input' must be (N, C, L) or (C, L) and 'weight' (K, C/groups, S), got {input.shape} and "
            f"{weight.shape}"
        )

    def along(name: str, value: Any, height: int) -> Any:
        if isinstance(value, str):
            return value
        values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        if len(values) != 1:
            raise ValueError(f"conv1d: {name!r} must be an int or a sequence of one, got {value!r}")
        return (height, values[0])

    conv2d_forward = _conv2d_of(
        along("stride", stride, 1), along("padding", padding, 0), along("dilation", dilation, 1), groups
    )

    def forward(x: Array, w: Array, b: Array | None) -> Any:
        y, conv2d_vjp = conv2d_forward(x[..., None, :], w[..., None, :], b)

        def vjp(dy: Array, need: Sequence[bool]) -> Any:
            dx, dw, db = conv2d_vjp(dy[..., None, :], need)
            return None if dx is None else dx[..., 0, :], None if dw is None else dw[..., 0, :], db

        return y[..., 0, :], vjp

    return apply("conv1d", forward, input, weight, bias)


def unfold(input: T, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> T:
    """im2col: every patch of ``input`` (N, C, H, W) as a column of (N, C * R * S, L), L patches; also without N."""

    def forward(x: Array) -> Any:
        y = kernels.unfold(x, kernel_size, dilation=dilation, padding=padding, stride=stride)
        size = x.shape[-2:]

        def vjp(dy: Array, need: Sequence[bool]) -> Any:
            return (kernels.fold(dy, size, kernel_size, dilation=dilation, padding=padding, stride=stride),)

        return y, vjp

    return apply("unfold", forward, input)


def fold(input: T, output_size: Pair, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> T:
    """col2im: columns (N, C * R * S, L) added up into images (N, C, *output_size), the transpose of ``unfold``."""

    def forward(columns: Array) -> Any:
        y = kernels.fold(columns, output_size, kernel_size, dilation=dilation, padding=padding, stride=stride)

        def vjp(dy: Array, need: Sequence[bool]) -> Any:
            return (kernels.unfold(dy, kernel_size, dilation=dilation, padding=padding, stride=stride),)

        return y, vjp

    return apply("fold", forward, input)
