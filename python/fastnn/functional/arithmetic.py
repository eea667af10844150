"""Broadcasting arithmetic and elementwise maths of Tensors: NumPy's functions forward, on our kernels where those fit
(kernels/arithmetic.py), or on a GPU those of the same names (cuda/arrays.py); their derivatives here.

They serve ``Tensor``'s operators and methods. Dtypes follow PyTorch: a number or a 0-d tensor does not widen the other
operand, a float of any width wins over integers, and dividing integers gives float32.
Activations are in activation.py, on our own kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..autograd import Tensor, apply, register
from ..kernels._backend import Array, attempt, empty, namespace
from ..kernels._check import FLOATS, expect_arrays, expect_one_device
from ..kernels.arithmetic import quick

__all__ = ["where"]

_NUMBERS = (int, float, type(None))


def as_array(y: Any) -> Array:
    """NumPy turns 0-d results into scalars; turn them back."""
    return np.asarray(y) if isinstance(y, np.generic) else y


def into(function: Any, a: Any, b: Any = None) -> Any:
    """``function(a)`` or ``function(a, b)``, without floating-point warnings; a float ufunc's result in memory that is
    reused: NumPy's own would be fresh pages. Where an operand is on a GPU, the GPU's function of the ufunc's name."""
    here = type(a) is np.ndarray and (b is None or type(b) is np.ndarray)
    if here and (y := quick(function, a, b)) is not None:
        return y
    given = (a,) if b is None else (a, b)
    if isinstance(function, np.ufunc) and not here:
        for x in given:
            if not isinstance(x, (np.ndarray, np.generic)):
                return getattr(namespace(x), function.__name__)(*given)
    with np.errstate(all="ignore"):
        if here and isinstance(function, np.ufunc) and a.dtype.kind == "f" and (b is None or b.dtype == a.dtype):
            return function(*given, out=empty(a.shape if b is None else np.broadcast(a, b).shape, a))
        return as_array(function(*given))


def summed(x: Array, axis: Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The sum over some axes (None: all), in an order fixed by the shape: by our kernel, run of neighbouring dimensions
    after run, from the last; integers by NumPy, in int64; on a GPU all by ours."""
    if not isinstance(x, np.ndarray):
        return namespace(x).sum(x, axis, keepdims)
    along = list(range(x.ndim)) if axis is None else sorted([i % x.ndim for i in axis])
    if x.dtype not in FLOATS:
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.int64)
        return as_array(x.sum(axis=tuple(along), keepdims=keepdims, dtype=dtype))
    shape = tuple([1 if i in along else n for i, n in enumerate(x.shape)]) if keepdims else None
    if len(along) == x.ndim and x.flags.c_contiguous:
        y = attempt.sum_middle(x.reshape(1, x.size, 1), (1, 1))
        if y is not None:
            return y.reshape(shape or ())
    y = x if along else kernels.sum_middle(x, 0, 0)
    while along:
        begin = along.pop()
        end = begin + 1
        while along and along[-1] == begin - 1:
            begin = along.pop()
        y = kernels.sum_middle(y, begin, end)
    return y if shape is None else y.reshape(shape)


def unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """Sum ``dy`` over the dimensions along which an operand of ``shape`` was repeated."""
    if dy.shape == shape:
        return dy
    new = tuple(range(dy.ndim - len(shape)))
    dy = summed(dy, new) if new else dy
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and dy.shape[i] != 1)
    return summed(dy, repeated, keepdims=True) if repeated else dy


def _expect_broadcast(op: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    for m, n in zip(reversed(a), reversed(b)):
        if m != n and m != 1 and n != 1:
            raise ValueError(f"{op}: shapes {a} and {b} do not broadcast: from the right, sizes must be equal or 1")


def operands(op: str, a: Any, b: Any) -> tuple[Any, Any]:
    """Two operands (arrays or numbers) of one dtype, by PyTorch's rules; raises where shapes do not broadcast."""
    if type(a) is type(b) is np.ndarray and a.dtype == b.dtype and a.dtype.kind in "fiub":
        if a.shape != b.shape:
            _expect_broadcast(op, a.shape, b.shape)
        return a, b
    for x, other in ((a, b), (b, a)):
        if type(x) is np.ndarray and x.ndim and x.dtype in FLOATS and type(other) in (int, float):
            number = np.asarray(other, x.dtype)
            return (a, number) if x is a else (number, b)
    a, b = (x.item() if isinstance(x, np.generic) else x for x in (a, b))
    try:
        a, b = (np.asarray(x) if isinstance(x, (list, tuple)) else x for x in (a, b))
        dtypes = [x.dtype if hasattr(x, "dtype") else np.dtype(type(x)) for x in (a, b)]
    except (TypeError, ValueError, RuntimeError):  # a ragged list, a list of tensors with gradients
        dtypes = [np.dtype(object)]
    if any(d.kind not in "fiub" for d in dtypes):
        raise TypeError(
            f"{op}: cannot combine {type(a).__name__} and {type(b).__name__}; use tensors, arrays or numbers"
        )
    if hasattr(a, "shape") and hasattr(b, "shape"):
        _expect_broadcast(op, a.shape, b.shape)
        if dtypes[0] == dtypes[1]:
            return a, b
    # What decides is the kind (bool < int < float), then the rank (number < 0-d < array), then the width.
    strength = []
    for x, d in zip((a, b), dtypes):
        rank = 0 if not hasattr(x, "ndim") else 1 if x.ndim == 0 else 2
        default = np.dtype(np.float32) if rank == 0 and d.kind == "f" else d
        strength.append(("biuf".index("i" if d.kind == "u" else d.kind), rank, default.itemsize, default))
    dtype = max(strength, key=lambda s: s[:3])[3]
    a, b = (x.astype(dtype, copy=False) if hasattr(x, "astype") else np.asarray(x, dtype) for x in (a, b))
    return a, b


def _binary(op: str, function: Any, a: Any, b: Any, gradients: Any, real: bool = False) -> Any:
    """``y = function(a, b)``; ``gradients(a, b, y)`` gives the functions from dy to da and db, not yet unbroadcast.

    Only what those functions mention is kept for the backward pass. ``real``: of integers, float32.
    """

    def forward(a: Any, b: Any) -> Any:
        a_shape, b_shape = getattr(a, "shape", ()), getattr(b, "shape", ())
        a_dtype, b_dtype = getattr(a, "dtype", None), getattr(b, "dtype", None)
        a, b = operands(op, a, b)
        if real and a.dtype.kind != "f":
            a, b = a.astype(np.float32), b.astype(np.float32)
        y = into(function, a, b)
        da, db = gradients(a, b, y)

        def vjp(dy: Array, need: Any) -> Any:
            return (
                unbroadcast(as_array(da(dy)), a_shape).astype(a_dtype, copy=False) if need[0] else None,
                unbroadcast(as_array(db(dy)), b_shape).astype(b_dtype, copy=False) if need[1] else None,
            )

        return y, vjp

    return apply(op, forward, a, b)


@register("add")
def add(a: Any, b: Any) -> Any:
    return _binary("add", np.add, a, b, lambda a, b, y: (lambda dy: dy, lambda dy: dy))


@register("sub")
def sub(a: Any, b: Any) -> Any:
    return _binary("sub", np.subtract, a, b, lambda a, b, y: (lambda dy: dy, lambda dy: into(np.negative, dy)))


@register("mul")
def mul(a: Any, b: Any) -> Any:
    return _binary(
        "mul",
        np.multiply,
        a,
        b,
        lambda a, b, y: (
            lambda dy: into(np.multiply, dy, b),
            lambda dy: into(np.multiply, dy, a),
        ),
    )


@register("div")
def div(a: Any, b: Any) -> Any:
    return _binary(
        "div",
        np.divide,
        a,
        b,
        lambda a, b, y: (
            lambda dy: into(np.divide, dy, b),
            lambda dy: into(np.divide, into(np.multiply, into(np.negative, dy), y), b),
        ),
        real=True,
    )


@register("pow")
def pow(a: Any, b: Any) -> Any:
    def gradients(a: Any, b: Any, y: Any) -> Any:
        xp = namespace(y)

        def da(dy: Array) -> Array:  # 0 where b is 0, also at a = 0
            with np.errstate(all="ignore"):
                slope = xp.multiply(b, xp.power(a, xp.subtract(b, np.ones((), b.dtype))))
                return xp.multiply(dy, xp.where(xp.equal(b, 0), xp.zeros_like(y), slope))

        def db(dy: Array) -> Array:
            with np.errstate(all="ignore"):
                flat = xp.bitwise_and(xp.equal(a, 0), xp.greater_equal(b, 0))
                return xp.multiply(dy, xp.where(flat, xp.zeros_like(y), xp.multiply(y, xp.log(a))))

        return da, db

    return _binary("pow", np.power, a, b, gradients)


def _unary(op: str, function: Any, x: Any, gradient: Any) -> Any:
    """``y = function(x)``; ``gradient(x, y)`` gives the function from dy to dx."""

    def forward(x: Array) -> Any:
        y = into(function, x)
        dx = gradient(x, y)

        def vjp(dy: Array, need: Any) -> Any:
            return (as_array(dx(dy)),)

        return y, vjp

    return apply(op, forward, x)


def _float(x: Any) -> Any:
    """``x``, or ``x`` as float32 where it holds integers, as PyTorch does for exp, log and sqrt."""
    return x if x.dtype.kind == "f" else cast(x, np.dtype(np.float32))


@register("neg")
def neg(x: Any) -> Any:
    return _unary("neg", np.negative, x, lambda x, y: lambda dy: into(np.negative, dy))


@register("abs")
def abs(x: Any) -> Any:
    return _unary("abs", np.abs, x, lambda x, y: lambda dy: into(np.multiply, dy, into(np.sign, x)))


@register("exp")
def exp(x: Any) -> Any:
    return _unary("exp", np.exp, _float(x), lambda x, y: lambda dy: into(np.multiply, dy, y))


@register("log")
def log(x: Any) -> Any:
    return _unary("log", np.log, _float(x), lambda x, y: lambda dy: into(np.divide, dy, x))


@register("sqrt")
def sqrt(x: Any) -> Any:
    return _unary("sqrt", np.sqrt, _float(x), lambda x, y: lambda dy: into(np.divide, dy, into(np.add, y, y)))


@register("clip")
def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """``x`` limited to [min, max]; the gradient is 1 where min <= x <= max, as in PyTorch. The bounds have none."""
    if min is None and max is None:
        raise ValueError("clip: pass min, max, or both")
    if any(isinstance(b, Tensor) and b.requires_grad for b in (min, max)):
        raise ValueError("clip: there is no gradient with respect to the bounds; pass min.detach(), max.detach()")
    if not (isinstance(min, _NUMBERS) and isinstance(max, _NUMBERS)):
        expect_one_device("clip", input=x, min=min, max=max)
    low, high = (b.array if isinstance(b, Tensor) else b for b in (min, max))
    for name, bound in (("min", low), ("max", high)):
        try:
            fits = bound is None or np.broadcast_shapes(shape_of(bound), x.shape) == x.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"clip: '{name}' of shape {shape_of(bound)} does not broadcast to the tensor's {x.shape}")
    if x.dtype.kind != "f" and any(_kind(b) == "f" for b in (low, high) if b is not None):
        x = cast(x, np.dtype(np.float32))

    def clipped(x: Array) -> Array:
        if type(x) is np.ndarray and isinstance(low, _NUMBERS) and isinstance(high, _NUMBERS):
            least, most = (-np.inf if low is None else low), (np.inf if high is None else high)
            if least == least and most == most and (y := attempt.hardtanh(x, least, most)) is not None:
                return y
        return namespace(x).clip(x, low, high).astype(x.dtype, copy=False)

    def gradient(x: Array, y: Array) -> Any:
        def dx(dy: Array) -> Array:
            xp = namespace(x)
            keep = xp.ones_like(x)
            if low is not None:
                keep = xp.multiply(keep, xp.greater_equal(x, low))
            if high is not None:
                keep = xp.multiply(keep, xp.less_equal(x, high))
            return into(np.multiply, dy, keep)

        return dx

    return _unary("clip", clipped, x, gradient)


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of an array, a number or a list."""
    return x.shape if hasattr(x, "shape") else np.shape(x)


def _kind(x: Any) -> str:
    return (x if hasattr(x, "dtype") else np.asarray(x)).dtype.kind


@register("cast")
def cast(x: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind not in "fiub":
        raise TypeError(f"to: cannot convert to {dtype}; use a float, integer or boolean dtype")

    def forward(x: Array) -> Any:
        before = x.dtype
        return x.astype(dtype), lambda dy, need: (dy.astype(before),)

    return apply("to", forward, x.detach() if isinstance(x, Tensor) and dtype.kind != "f" else x)


@register("clone")
def clone(x: Any) -> Any:
    return apply("clone", lambda x: (x.copy(), lambda dy, need: (dy,)), x)


def where(condition: Any, input: Any, other: Any) -> Any:
    """``input`` where ``condition`` holds, else ``other``; all three broadcast."""
    expect_arrays("where", condition=condition)
    for name, x in (("input", input), ("other", other)):
        if isinstance(x, (list, tuple)):
            raise TypeError(f"where: '{name}' must be a tensor, an array or a number, got {type(x).__name__}")
    given = condition.array if isinstance(condition, Tensor) else condition
    xp = namespace(given)
    mask = xp.array(given)  # a copy: backward needs it as it is
    if mask.dtype.kind != "b":
        raise TypeError(f"where: 'condition' must hold booleans, got {mask.dtype}; use a comparison such as x > 0")
    try:
        np.broadcast_shapes(mask.shape, shape_of(input), shape_of(other))
    except ValueError:
        raise ValueError(
            f"where: shapes {mask.shape}, {shape_of(input)} and {shape_of(other)} do not broadcast: from the right, "
            "sizes must be equal or 1"
        ) from None
    try:
        return _binary(
            "where",
            lambda a, b: xp.where(mask, a, b),
            input,
            other,
            lambda a, b, y: (
                lambda dy: xp.where(mask, dy, xp.zeros_like(dy)),
                lambda dy: xp.where(mask, xp.zeros_like(dy), dy),
            ),
        )
    except TypeError:
        expect_one_device("where", condition=condition, input=input, other=other)  # the likely reason
        raise
