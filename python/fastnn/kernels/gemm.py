"""Matrix products on plain arrays: ``gemm`` for two matrices with everything that fuses, ``gemm_batch`` for many."""

from __future__ import annotations

from typing import Any

from ._backend import Array, attempt, backend
from ._check import choice, contiguous, deliver, expect_floats, expect_one_device, floats, output, plain, real

__all__ = ["gemm", "gemm_batch"]

ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2, "tanh": 3, "silu": 4, "gelu": 5, "gelu_tanh": 6}
"""What may be fused, by its number in csrc/cpu/activation.h."""


def _stored(x: Array, trans: bool) -> tuple[Array, bool]:
    """``x`` as a C-contiguous array and whether to transpose it: a transposed view costs no copy."""
    flags = x.flags
    if flags.c_contiguous and getattr(flags, "aligned", True):
        return x, trans
    turned = x.swapaxes(-1, -2)
    return (contiguous(turned), not trans) if turned.flags.c_contiguous else (contiguous(x), trans)


def _operands(op: str, a: Array, b: Array, ndim: int) -> tuple[Array, Array]:
    """The operands, checked."""
    a, b = plain(op, "a", a), plain(op, "b", b)
    expect_floats(op, a=a, b=b)
    layout = "a matrix" if ndim == 2 else "(B, rows, columns)"
    for name, x in (("a", a), ("b", b)):
        if x.ndim != ndim:
            raise ValueError(
                f"{op}: '{name}' must be {layout}, got {x.ndim} dimensions: shape {x.shape}; "
                "fastnn.functional.matmul takes vectors, matrices and batches"
            )
    return a, b


def _describe(name: str, x: Array, trans: bool) -> str:
    return f"{name}.T {x.shape[::-1]}" if trans else f"{name} {x.shape}"


def gemm(
    a: Array,
    b: Array,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    alpha: float = 1.0,
    beta: float = 0.0,
    bias: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """``activation(alpha * op(a) @ op(b) + beta * out + bias)``, ``op`` transposing by ``trans_a``, ``trans_b``.

    Shapes: op(a) ``(M, K)``, op(b) ``(K, N)``, result ``(M, N)``; bias ``(N,)`` or ``(1, N)`` adds to every row,
    ``(M, 1)`` to every column. ``activation`` is None, ``"relu"``, ``"sigmoid"``, ``"tanh"``, ``"silu"``, ``"gelu"`` or
    ``"gelu_tanh"`` (gelu's approximation). ``beta`` other than 0 needs ``out``; with 0, ``out`` is overwritten and may
    hold NaN. Transposed views (``x.T``) are read in place. An element's bits depend on its row, its column and K
    alone: not on threads, nor on the other rows (on a GPU on M and N too, which choose the tile). Blocked after Van
    Zee and van de Geijn, BLIS (2015).
    """
    # Straight to the kernel, which checks every argument and size: small products take 3 us altogether. What it will
    # not take as it is, or refuses, comes here again to be copied, or told what is wrong.
    try:
        y: Any = (a.shape[bool(trans_a)], b.shape[not trans_b]) if out is None and not beta else out
        y = attempt.gemm(a, b, bias, y, trans_a, trans_b, ACTIVATIONS[activation], alpha, beta)
        if y is not None:
            return y if out is None else out
    except (AttributeError, IndexError, KeyError, MemoryError, TypeError, ValueError):
        pass
    a, b = _operands("gemm", a, b, 2)
    m, k = a.shape if not trans_a else a.shape[::-1]
    k_of_b, n = b.shape if not trans_b else b.shape[::-1]
    if k != k_of_b:
        raise ValueError(
            f"gemm: {_describe('a', a, trans_a)} times {_describe('b', b, trans_b)}: {k} columns against {k_of_b} "
            "rows; they must agree (transpose one with trans_a or trans_b?)"
        )
    choice("gemm", "activation", activation, (*ACTIVATIONS,))
    if bias is not None:
        (bias,) = floats("gemm", bias=bias)
        expect_one_device("gemm", a=a, bias=bias)
        if bias.dtype != a.dtype:
            raise TypeError(f"gemm: 'a' is {a.dtype} but 'bias' is {bias.dtype}; convert one with .astype(...)")
        if bias.shape not in ((n,), (1, n), (m, 1)):
            raise ValueError(
                f"gemm: 'bias' must be ({n},) for the columns or ({m}, 1) for the rows of the ({m}, {n}) result, "
                f"got {bias.shape}"
            )
    y = output("gemm", out, (m, n), a, a, b, bias)
    beta = beta if type(beta) is float else real("gemm", "beta", beta)
    if beta != 0.0:
        if out is None:
            raise ValueError(f"gemm: beta={beta} scales what 'out' holds, but 'out' is None; pass out= or beta=0")
        if y is not out:
            y[...] = out
    stored_a, flip_a = _stored(a, trans_a)
    stored_b, flip_b = _stored(b, trans_b)
    backend("gemm", a).gemm(stored_a, stored_b, bias, y, flip_a, flip_b, ACTIVATIONS[activation], alpha, beta)
    return deliver(y, out)


def gemm_batch(a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False, out: Array | None = None) -> Array:
    """``op(a[i]) @ op(b[i])`` for all i; a (B, M, K), b (B, K, N), result (B, M, N). A batch of 1 serves all."""
    a, b = _operands("gemm_batch", a, b, 3)
    m, k = a.shape[1:] if not trans_a else a.shape[:0:-1]
    k_of_b, n = b.shape[1:] if not trans_b else b.shape[:0:-1]
    if k != k_of_b:
        raise ValueError(
            f"gemm_batch: a {a.shape} (trans_a={trans_a}) times b {b.shape} (trans_b={trans_b}): {k} columns against "
            f"{k_of_b} rows; they must agree"
        )
    batch_a, batch_b = a.shape[0], b.shape[0]
    if batch_a != batch_b and 1 not in (batch_a, batch_b):
        raise ValueError(
            f"gemm_batch: a {a.shape} and b {b.shape} hold {batch_a} and {batch_b} matrices; they must agree"
        )
    y = output("gemm_batch", out, (batch_b if batch_a == 1 else batch_a, m, n), a, a, b)
    stored_a, flip_a = _stored(a, trans_a)
    stored_b, flip_b = _stored(b, trans_b)
    backend("gemm_batch", a).gemm_batch(stored_a, stored_b, y, flip_a, flip_b)
    return deliver(y, out)
