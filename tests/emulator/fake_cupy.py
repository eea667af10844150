"""A strict stand-in for the part of CuPy that fastnn uses: its module functions. The array is in fake_array.py.

A name that is not here is missing, also where CuPy has it: add it when fastnn needs it, after a look at CuPy's own.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import fake_array
from .fake_array import _UFUNCS, Memory, _delegate, _dlpack_device_type, _plain, _ufunc, _wrap, ndarray

float32, float64, int32, int64, uint8, uint32, uint64, bool_ = (
    np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint32, np.uint64, np.bool_,
)  # fmt: skip
newaxis, pi, inf, nan = np.newaxis, np.pi, np.inf, np.nan


def _module_ufunc(name: str) -> Any:
    ufunc = getattr(np, name)
    return lambda *inputs, **kwargs: _ufunc(ufunc, *inputs, **kwargs)


for _name in _UFUNCS:
    globals()[_name] = _module_ufunc(_name)
globals()["abs"] = _module_ufunc("absolute")
_FUNCTIONS = {
    "all", "allclose", "any", "argmax", "argmin", "argsort", "array_equal", "atleast_1d", "broadcast_arrays",
    "broadcast_to", "clip", "concatenate", "count_nonzero", "cumsum", "diag", "dot", "einsum", "expand_dims", "flip",
    "max", "mean", "min", "moveaxis", "nonzero", "ones_like", "outer", "pad", "prod", "ravel", "repeat", "reshape",
    "roll", "rollaxis", "sort", "split", "squeeze", "stack", "std", "sum", "swapaxes", "take", "take_along_axis",
    "tensordot", "tile", "transpose", "tril", "triu", "var", "vstack", "hstack", "where", "zeros_like",
}  # fmt: skip
for _name in _FUNCTIONS:
    globals()[_name] = _delegate(getattr(np, _name), _name)


# -- creation, conversion ----------------------------------------------------------------------------------------------
def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order)


def empty_like(a: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    return ndarray(a.shape if shape is None else shape, a.dtype if dtype is None else dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    result = ndarray(shape, np.result_type(_plain(fill_value)) if dtype is None else dtype, order)
    result._a[...] = _plain(fill_value)
    return result


def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None) -> ndarray:
    return full(a.shape if shape is None else shape, fill_value, a.dtype if dtype is None else dtype)


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float) -> ndarray:
    return full(shape, 1, dtype)


def arange(*args: Any, dtype: Any = None) -> ndarray:
    return _wrap(np.arange(*args, dtype=dtype))


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> ndarray:
    return _wrap(np.eye(N, M, k, dtype))


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", subok: bool = False, ndmin: int = 0
) -> ndarray:
    if isinstance(obj, ndarray):
        return obj.astype(obj.dtype if dtype is None else dtype, copy=bool(copy))
    if isinstance(obj, (list, tuple)) and True in (isinstance(x, ndarray) for x in obj):
        obj = [x.get() if isinstance(x, ndarray) else x for x in obj]
    return _wrap(np.array(obj, dtype, order="C", ndmin=ndmin))


def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False) -> ndarray:
    return array(a, dtype, copy=False)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    return a.get(order=order, out=out) if isinstance(a, ndarray) else np.asarray(a)


def copyto(dst: ndarray, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    np.copyto(dst._a, _plain(src), casting=casting)


def from_dlpack(a: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    if tuple(map(int, a.__dlpack_device__())) != (2, 0):
        raise ValueError("from_dlpack: the array is not on a CUDA device")
    if isinstance(a, ndarray):
        return _wrap(a._a.view(), a)
    capsule = a.__dlpack__()
    _dlpack_device_type(capsule).value = 1

    class Host:
        __dlpack__ = staticmethod(lambda **_: capsule)
        __dlpack_device__ = staticmethod(lambda: (1, 0))

    shared = np.from_dlpack(Host())
    result = ndarray.__new__(ndarray)
    memory = Memory.__new__(Memory)
    memory.ptr, memory.size, memory.guard = shared.ctypes.data, shared.nbytes, 0
    result._a, result._memory, result.base = shared, memory, None
    return result


def may_share_memory(a: ndarray, b: ndarray, max_work: Any = None) -> bool:
    return bool(np.may_share_memory(a._a, b._a))


def shares_memory(a: ndarray, b: ndarray, max_work: Any = None) -> bool:
    return bool(np.shares_memory(a._a, b._a))


def get_array_module(*args: Any) -> Any:
    return sys.modules[__name__] if True in (isinstance(a, ndarray) for a in args) else np


def isscalar(x: Any) -> bool:
    return np.isscalar(x)


def result_type(*args: Any) -> Any:
    return np.result_type(*map(_plain, args))


dtype, can_cast, issubdtype, finfo, iinfo, promote_types = (
    np.dtype, np.can_cast, np.issubdtype, np.finfo, np.iinfo, np.promote_types,
)  # fmt: skip


class cuda:  # noqa: N801
    """``cupy.cuda``: one device."""

    Device = fake_array.Device
