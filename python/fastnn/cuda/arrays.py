"""The array functions that Tensors need beside the kernels' table, under NumPy's names: ``gpu.arrays.add(a, b)``.

Arithmetic, comparisons, reductions run on our kernels (csrc/cuda/arithmetic.cu, reduce.cu), whose sums have a fixed
order; indexing, copies and joining are CuPy's own, and so is what is rare. Operands are the device's arrays or numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .launch import blocks, ctype, where
from .reduce import places, sums
from .table import UNITS

if TYPE_CHECKING:
    from .device import Device

__all__ = ["Arrays"]

MAX_DIMS = 8
THREADS = 256

COMPARISONS = {name: (name, False) for name in ("equal", "not_equal", "greater", "greater_equal")}
COMPARISONS |= {"less": ("greater", True), "less_equal": ("greater_equal", True)}  # of swapped operands
BINARY = {name: name for name in ("add", "subtract", "multiply", "power", "maximum", "minimum")}
BINARY |= {"divide": "divide", "true_divide": "divide"}
BITWISE = {name: name for name in ("bitwise_and", "bitwise_or", "bitwise_xor")}
OF_BOOLS = {"add": "bitwise_or", "maximum": "bitwise_or", "multiply": "bitwise_and", "minimum": "bitwise_and"}
UNARY = {"negative": "negative", "absolute": "absolute", "abs": "absolute", "sign": "sign", "square": "square"}
MATHS = {"exp": "exponential", "log": "logarithm", "log1p": "logarithm_of_one_and", "sqrt": "square_root"}

BOOL, INT64, FLOAT32, FLOAT64 = map(np.dtype, ("bool", "int64", "float32", "float64"))
_WORK = {BOOL: BOOL, INT64: INT64, FLOAT32: FLOAT32, FLOAT64: FLOAT64, np.dtype("float16"): FLOAT32}
_WORK |= {np.dtype(kind): INT64 for kind in ("int8", "int16", "int32", "uint8", "uint16", "uint32")}
"""The dtypes that kernels compute in, by the operands'. uint64 is left to CuPy."""


class Arrays:
    """NumPy's functions on one device."""

    def __init__(self, gpu: Device) -> None:
        self._gpu = gpu
        for name in (*BINARY, *BITWISE, *COMPARISONS):
            setattr(self, name, partial(self._binary, name))
        for name in (*UNARY, *MATHS, "invert"):
            setattr(self, name, partial(self._unary, name))

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._gpu.xp, name)

        def there(*args: Any, **kwargs: Any) -> Any:
            with self._gpu.current():
                return own(*args, **kwargs)

        setattr(self, name, there)
        return there

    # -- elementwise ---------------------------------------------------------------------------------------------------
    def _binary(self, name: str, a: Any, b: Any) -> Any:
        if not (self._gpu.holds(a) or self._gpu.holds(b)):
            return getattr(np, name)(a, b)[()]
        compares = name in COMPARISONS
        dtype = _common(a, b)
        if name in ("divide", "true_divide") and dtype.kind != "f":
            dtype = FLOAT64
        work = _WORK.get(dtype)
        function, swapped = COMPARISONS.get(name) or (BINARY.get(name) or BITWISE[name], False)
        if work == BOOL and not compares:
            function = OF_BOOLS.get(function, function)
        result = BOOL if compares else work
        if work is None or result is None or not _in_table(work, f"binary<{_types(work, result, function)}>"):
            with self._gpu.current():
                return getattr(self._gpu.xp, name)(a, b)
        a, b = (b, a) if swapped else (a, b)
        y = self._apply(function, self._operand(a, work), self._operand(b, work), work, result)
        return y if compares else self._cast(y, dtype)

    def _operand(self, x: Any, dtype: np.dtype[Any]) -> Any:
        """An array of ``dtype``, or a number of it."""
        if not self._gpu.holds(x):
            if getattr(x, "ndim", 0):
                raise TypeError(f"cannot combine an array on {self._gpu.label} and {where(x)}; move one with .to(...)")
            return dtype.type(x)
        return self._cast(x, dtype)

    def _cast(self, x: Any, dtype: np.dtype[Any]) -> Any:
        if x.dtype == dtype:
            return x
        with self._gpu.current():
            return x.astype(dtype)

    def _apply(self, function: str, a: Any, b: Any, dtype: np.dtype[Any], result: np.dtype[Any]) -> Any:
        arrays = [x for x in (a, b) if not isinstance(x, np.generic)]
        shape = arrays[0].shape if len(arrays) == 1 else np.broadcast_shapes(a.shape, b.shape)
        y = self._gpu.empty(shape, result)
        t, types = ctype(dtype), _types(dtype, result, function)
        (a, a_number), (b, b_number) = (_split(x, dtype) for x in (a, b))
        if all(x.shape == shape and x.flags.c_contiguous for x in arrays):
            grid = blocks(y.size, THREADS, 16 // dtype.itemsize)
            self._gpu.launch(f"arithmetic_{t}", f"binary<{types}>", grid, THREADS, a, b, y, y.size, a_number, b_number)
        else:
            (a, b), layout = self._layout(shape, a, b)
            args = (a, b, y, y.size, a_number, b_number, layout)
            self._gpu.launch(f"arithmetic_{t}", f"binary_strided<{types}>", blocks(y.size), THREADS, *args)
        return y

    def _layout(self, shape: tuple[int, ...], *operands: Any) -> tuple[list[Any], tuple[Any, ...]]:
        """The operands, for their addresses, and their strides: struct Layout of arithmetic.cu. Neighbouring dimensions
        are made one where the operands allow it."""
        columns = [_strides(x, len(shape)) for x in operands]
        dims: list[tuple[int, tuple[int, ...]]] = []
        for n, *steps in zip(shape, *columns):
            if n == 1:
                continue
            if dims and all(outer == step * n for outer, step in zip(dims[-1][1], steps)):
                dims[-1] = dims[-1][0] * n, tuple(steps)
            else:
                dims.append((n, tuple(steps)))
        if len(dims) > MAX_DIMS:  # seldom: the operands as they would be without strides
            copies = [None if x is None else self.ascontiguousarray(self.broadcast_to(x, shape)) for x in operands]
            return self._layout(shape, *copies)
        rest = [0] * (MAX_DIMS - len(dims))
        fields = [[*(n for n, _ in dims), *rest]]
        fields += [[*(steps[k] for _, steps in dims), *rest] for k in range(len(operands))]
        fields += [[0] * MAX_DIMS] * (4 - len(fields))
        return [None if x is None else _first(x) for x in operands], (*fields, len(dims))

    def _unary(self, name: str, x: Any) -> Any:
        if not self._gpu.holds(x):
            return getattr(np, name)(x)[()]
        dtype = FLOAT64 if name in MATHS and x.dtype.kind != "f" else x.dtype
        work = _WORK.get(dtype)
        function = "logical_not" if work == BOOL and name == "invert" else UNARY.get(name) or MATHS.get(name) or name
        if work is None or not _in_table(work, f"unary<{ctype(work)}, {function}>"):
            with self._gpu.current():
                return getattr(self._gpu.xp, name)(x)
        x = self.ascontiguousarray(self._operand(x, work))
        y, t = self._gpu.empty(x.shape, work), ctype(work)
        grid = blocks(x.size, THREADS, 16 // work.itemsize)
        self._gpu.launch(f"arithmetic_{t}", f"unary<{t}, {function}>", grid, THREADS, x, y, x.size)
        return self._cast(y, dtype)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """``a`` where the condition, an array of booleans, holds, else ``b``."""
        if not self._gpu.holds(condition):
            condition = self.asarray(condition)
        dtype = _common(a, b)
        work = _WORK.get(dtype)
        if work is None:
            with self._gpu.current():
                return self._gpu.xp.where(condition, a, b)
        a, b = self._operand(a, work), self._operand(b, work)
        shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
        y, t = self._gpu.empty(shape, work), ctype(work)
        (a, a_number), (b, b_number) = _split(a, work), _split(b, work)
        (a, b, c), layout = self._layout(shape, a, b, condition)
        args = (c, a, b, y, y.size, a_number, b_number, layout)
        self._gpu.launch(f"arithmetic_{t}", f"where<{t}>", blocks(y.size), THREADS, *args)
        return self._cast(y, dtype)

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        """``x`` limited to [low, high]; a bound that is None limits nothing."""
        x = x if low is None else self.maximum(x, low)
        return x.copy() if low is None and high is None else x if high is None else self.minimum(x, high)

    # -- elements ------------------------------------------------------------------------------------------------------
    def put_along_axis(self, x: Any, indices: Any, values: Any, axis: int) -> None:
        """``x[..., indices, ...] = values`` along one axis, the indices of it differing."""
        index = [self.arange(n).reshape([-1 if i == d else 1 for i in range(x.ndim)]) for d, n in enumerate(x.shape)]
        index[axis] = indices
        x[tuple(index)] = values

    def add_at(self, x: Any, key: Any, values: Any) -> None:
        """``x[key] += values``, each element as often as the key names it, in the key's order."""
        taken = self.arange(x.size).reshape(x.shape)[key].reshape(-1)
        values = self.ascontiguousarray(self.broadcast_to(values, x[key].shape)).reshape(-1)
        order = self.argsort(taken, kind="stable")
        args = (order, taken, values, x, taken.size)
        self._gpu.launch("reduce", f"add_at<{ctype(x.dtype)}>", blocks(taken.size), THREADS, *args)

    # -- reductions ----------------------------------------------------------------------------------------------------
    def _middle(self, x: Any, axis: int | Sequence[int] | None) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
        """``x`` as (outer, n, inner) around what is reduced; the shapes of the result without and with those axes."""
        axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        along = sorted(i % max(x.ndim, 1) for i in axes if x.ndim)
        kept = [i for i in range(x.ndim) if i not in along]
        shape = tuple(x.shape[i] for i in kept)
        full = tuple(1 if i in along else n for i, n in enumerate(x.shape))
        begin = along[0] if along else 0
        if along != list(range(begin, begin + len(along))):
            x, begin = x.transpose([*kept, *along]), len(kept)
        sizes = x.shape[:begin], x.shape[begin : begin + len(along)], x.shape[begin + len(along) :]
        return self.ascontiguousarray(x).reshape([prod(part) for part in sizes]), shape, full

    def sum(self, x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
        """The sum over some axes, in an order fixed by the shape; integers and booleans are summed as int64."""
        work = _WORK.get(x.dtype)
        if work is None:
            with self._gpu.current():
                return x.sum(axis=axis, keepdims=keepdims)
        view, shape, full = self._middle(self._operand(x, work), axis)
        outer, _, inner = view.shape
        y = self._gpu.empty((outer, inner), INT64 if work == BOOL else work)
        sums(self._gpu, view, y)
        y = y.reshape(full if keepdims else shape)
        return self._cast(y, x.dtype) if x.dtype.kind == "f" else y

    def argmax(self, x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
        """The place of the largest element, of equals the first; a NaN counts as the largest."""
        return self._place(x, axis, keepdims, lowest=False)

    def argmin(self, x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
        """The place of the smallest element, of equals the first; a NaN counts as the smallest."""
        return self._place(x, axis, keepdims, lowest=True)

    def _place(self, x: Any, axis: int | None, keepdims: bool, lowest: bool) -> Any:
        work = _WORK.get(x.dtype)
        if work is None:
            with self._gpu.current():
                return (x.argmin if lowest else x.argmax)(axis=axis, keepdims=keepdims)
        view, shape, full = self._middle(self._operand(x, work), axis)
        outer, _, inner = view.shape
        place = self._gpu.empty((outer, inner), INT64)
        places(self._gpu, view, place, lowest)
        return place.reshape(full if keepdims else shape)

    def any(self, x: Any) -> Any:
        """Whether any element is not 0, as a 0-d array."""
        return self.greater(self._count(x), 0)

    def all(self, x: Any) -> Any:
        """Whether no element is 0, as a 0-d array."""
        return self.equal(self._count(x), x.size)

    def _count(self, x: Any) -> Any:
        return self.sum(x if x.dtype == BOOL else self.not_equal(x, 0))


def _common(a: Any, b: Any) -> np.dtype[Any]:
    """The dtype of a result, as NumPy's: a Python number takes the array's."""
    a, b = getattr(a, "dtype", a), getattr(b, "dtype", b)
    return a if a is b else np.result_type(a, b)


def _types(dtype: np.dtype[Any], result: np.dtype[Any], function: str) -> str:
    return f"{ctype(dtype)}, {ctype(result)}, {function}"


def _in_table(dtype: np.dtype[Any], expression: str) -> bool:
    return expression in UNITS[f"arithmetic_{ctype(dtype)}"].kernels


def _split(x: Any, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """An operand as the kernels take it: an array, or none and a number."""
    return (None, x) if isinstance(x, np.generic) else (x, dtype.type(0))


def _strides(x: Any, ndim: int) -> tuple[int, ...]:
    """In elements, for a result of ``ndim`` dimensions: 0 where ``x`` is repeated, or a number."""
    if x is None:
        return (0,) * ndim
    own = tuple(step // x.itemsize if n > 1 else 0 for n, step in zip(x.shape, x.strides))
    return (0,) * (ndim - len(own)) + own


def _first(x: Any) -> Any:
    """The first element of an array, as a contiguous one: what a kernel needs beside the strides."""
    return x if x.flags.c_contiguous else x[(slice(0, 1),) * x.ndim]
