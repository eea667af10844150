"""Matrix products with their gradients: ``linear`` (a layer) and ``matmul`` (``@``); the work is in kernels/gemm.py."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .. import kernels
from ..autograd import T, apply, register
from ..kernels._backend import Array
from ..kernels._check import expect_floats
from .arithmetic import unbroadcast

__all__ = ["linear", "matmul"]


def linear(input: T, weight: T, bias: T | None = None) -> T:
    """``y = x w^T + b``, the fully connected layer.

    Shapes: input ``(*, in)``, weight ``(out, in)``, bias ``(out,)`` or None, result ``(*, out)``; ``*`` is any number
    of dimensions, none included. A weight of shape ``(in,)`` gives a result of shape ``(*)``. Raises ValueError where
    the shapes do not fit.
    """

    return apply("linear", _linear, input, weight, bias)


def _linear(x: Array, w: Array, b: Array | None) -> Any:
    expect_floats("linear", input=x, weight=w, bias=b, optional=("bias",))
    x_shape, w_shape = x.shape, w.shape
    if not x_shape or len(w_shape) not in (1, 2) or x_shape[-1] != w_shape[-1]:
        sizes = f"{x_shape[-1]} features against {w_shape[-1]}" if x_shape and w_shape else "a 0-d operand"
        raise ValueError(
            f"linear: input {x_shape} times weight {w_shape} transposed: {sizes}; input must be (*, in), "
            "weight (out, in)"
        )
    if b is not None and b.shape != w_shape[:-1]:
        raise ValueError(f"linear: bias must be {w_shape[:-1]} for weight {w_shape}, got {b.shape}")
    if len(x_shape) == len(w_shape) == 2:
        return _linear_of_matrices(x, w, b)
    rows, features, outputs = prod(x_shape[:-1]), x_shape[-1], prod(w_shape[:-1])
    matrices = x.reshape(rows, features), w.reshape(outputs, features), None if b is None else b.reshape(outputs)
    y, vjp_of_matrices = _linear_of_matrices(*matrices)

    def vjp(dy: Array, need: Any) -> Any:
        gradients = vjp_of_matrices(dy.reshape(rows, outputs), need)
        return [None if g is None else g.reshape(s) for g, s in zip(gradients, (x_shape, w_shape, w_shape[:-1]))]

    return y.reshape(x_shape[:-1] + w_shape[:-1]), vjp


def _linear_of_matrices(x: Array, w: Array, b: Array | None) -> Any:
    def vjp(dy: Array, need: Any) -> Any:
        dx = kernels.gemm(dy, w) if need[0] else None
        dw = kernels.gemm(dy, x, trans_a=True) if need[1] else None
        db = kernels.sum_middle(dy, 0, 1) if need[2] else None
        return dx, dw, db

    return kernels.gemm(x, w, trans_b=True, bias=b), vjp


@register("matmul")
def matmul(input: T, other: T) -> T:
    """Matrix product: vectors, matrices or batches of matrices, as ``torch.matmul`` and ``numpy.matmul`` have it.

    Shapes: ``(*, M, K)`` and ``(*, K, N)`` give ``(*, M, N)``, the leading dimensions broadcast; a 1-D first operand is
    a row and a 1-D second one a column, and that dimension is dropped from the result. Raises ValueError otherwise.
    """
    expect_floats("matmul", input=input, other=other)
    a_shape: tuple[int, ...] = input.shape
    b_shape: tuple[int, ...] = other.shape
    if not a_shape or not b_shape:
        raise ValueError(f"matmul: operands must have at least one dimension, got {a_shape} and {b_shape}; use *")
    a_matrix = a_shape if len(a_shape) > 1 else (1, *a_shape)
    b_matrix = b_shape if len(b_shape) > 1 else (*b_shape, 1)
    if a_matrix[-1] != b_matrix[-2]:
        raise ValueError(
            f"matmul: {a_shape} times {b_shape}: {a_matrix[-1]} columns against {b_matrix[-2]} rows; they must agree"
        )
    try:
        batch: tuple[int, ...] = np.broadcast_shapes(a_matrix[:-2], b_matrix[:-2])
    except ValueError:
        raise ValueError(
            f"matmul: {a_shape} times {b_shape}: the leading dimensions {a_matrix[:-2]} and {b_matrix[:-2]} "
            "do not broadcast: from the right, sizes must be equal or 1"
        ) from None
    y_matrix = (*batch, a_matrix[-2], b_matrix[-1])
    y_shape = batch + a_matrix[-2:-1] * (len(a_shape) > 1) + b_matrix[-1:] * (len(b_shape) > 1)

    def forward(a: Array, b: Array) -> Any:
        y = _product(a.reshape(a_matrix), b.reshape(b_matrix), batch).reshape(y_shape)

        def vjp(dy: Array, need: Any) -> Any:
            dy = dy.reshape(y_matrix)
            da = db = None
            if need[0]:
                da = _product(dy, b.reshape(b_matrix).swapaxes(-1, -2), batch)
                da = unbroadcast(da, a_matrix).reshape(a_shape)
            if need[1] and len(b_matrix) == 2:  # one product over all rows of the batch, not a sum of products
                rows = prod(y_matrix[:-1])
                a_rows = np.broadcast_to(a.reshape(a_matrix), batch + a_matrix[-2:]).reshape(rows, a_matrix[-1])
                db = kernels.gemm(a_rows, dy.reshape(rows, b_matrix[-1]), trans_a=True).reshape(b_shape)
            elif need[1]:
                db = _product(a.reshape(a_matrix).swapaxes(-1, -2), dy, batch)
                db = unbroadcast(db, b_matrix).reshape(b_shape)
            return da, db

        return y, vjp

    return apply("matmul", forward, input, other)


def _product(a: Array, b: Array, batch: tuple[int, ...]) -> Array:
    """``a @ b`` for operands of two or more dimensions whose leading ones broadcast to ``batch``."""
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if b.ndim == 2 and (a.ndim == 2 or a.flags.c_contiguous):
        return kernels.gemm(a.reshape(prod(a.shape[:-1]), k), b).reshape(*batch, m, n)
    y = kernels.gemm_batch(_stack(a, batch), _stack(b, batch))
    return y.reshape(*batch, m, n)


def _stack(x: Array, batch: tuple[int, ...]) -> Array:
    """``x`` as (B, rows, columns): B is 1 for one matrix, else the size of ``batch``. Transposed views stay views."""
    rows, columns = x.shape[-2:]
    if prod(x.shape[:-2]) == 1 or x.shape[:-2] == batch:
        count = prod(x.shape[:-2])
    else:
        x, count = np.broadcast_to(x, batch + x.shape[-2:]), prod(batch)
    if not x.flags.c_contiguous and x.swapaxes(-1, -2).flags.c_contiguous:
        return x.swapaxes(-1, -2).reshape(count, columns, rows).swapaxes(-1, -2)
    return x.reshape(count, rows, columns)
