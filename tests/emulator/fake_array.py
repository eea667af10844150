"""The array of the strict stand-in for CuPy (fake_cupy.py), and its memory. NumPy computes; the class is not NumPy's.

As CuPy's: it is no subclass of NumPy's; NumPy never converts it on the quiet, and the two do not mix in arithmetic;
what reduces to one number stays a 0-d array; a new array holds garbage (here NaN). Beyond CuPy: memory has guards
around it, which a launch checks (``Memory.intact``). What is not listed here is missing here, also where CuPy has it:
add it when fastnn needs it, after a look at CuPy's own behaviour.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import partialmethod
from importlib import import_module
from typing import Any

import numpy as np

from . import build

GUARD = 256  # bytes before and after; a multiple of what any dtype needs
ALIGNMENT = 512  # as CuPy's pool


class Memory:
    """One allocation, full of NaN. Under AddressSanitizer it ends where its last byte ends, and has no guards."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.guard = 0 if build.mode() == "address" else GUARD
        libc = ctypes.CDLL(None)
        start = ctypes.c_void_p()
        offset = ALIGNMENT if self.guard else 0  # one guard, but keep the alignment
        total = max(offset + size + self.guard, 1)
        if total > 1 << 34 or libc.posix_memalign(
            ctypes.byref(start), ctypes.c_size_t(ALIGNMENT), ctypes.c_size_t(total)
        ):
            raise MemoryError(f"Out of memory allocating {size:,} bytes")
        assert start.value is not None
        weakref.finalize(self, libc.free, start)
        ctypes.memset(start.value, 0xFF, total)
        self.ptr = start.value + offset

    def bytes(self) -> np.ndarray:
        raw = np.frombuffer((ctypes.c_ubyte * self.size).from_address(self.ptr), np.uint8)
        return raw

    def intact(self) -> bool:
        """Whether nothing wrote beyond the array."""
        mark = b"\xff" * self.guard
        before = ctypes.string_at(self.ptr - self.guard, self.guard)
        return before == mark and ctypes.string_at(self.ptr + self.size, self.guard) == mark


class _Pointer:
    """``x.data``."""

    def __init__(self, ptr: int, mem: Memory) -> None:
        self.ptr, self.mem = ptr, mem


class Device:
    """``x.device``, ``cuda.Device()``."""

    def __init__(self, id: int = 0) -> None:
        self.id = id

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None: ...

    def synchronize(self) -> None: ...


class _Flags:
    def __init__(self, flags: Any, owndata: bool) -> None:
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, owndata

    def __getitem__(self, name: str) -> bool:
        return {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}[name]


class ndarray:  # noqa: N801
    """An array in the emulated device's memory."""

    __array_priority__ = 100
    __slots__ = ("_a", "_memory", "base", "__weakref__")

    def __init__(self, shape: Any, dtype: Any = float, order: str = "C") -> None:
        self._a, self._memory = _allocate(shape, np.dtype(dtype), order)
        self.base: ndarray | None = None

    # -- what it is ----------------------------------------------------------------------------------------------------
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    itemsize = property(lambda self: self._a.itemsize)
    nbytes = property(lambda self: self._a.nbytes)
    strides = property(lambda self: self._a.strides)
    device = property(lambda self: Device())
    data = property(lambda self: _Pointer(self._a.ctypes.data if self.size else 0, self._memory))
    flags = property(lambda self: _Flags(self._a.flags, self.base is None))
    T = property(lambda self: _wrap(self._a.T, self))
    real = property(lambda self: self)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._a.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._a.shape = shape

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self.flags.c_contiguous else self.strides
        data = (self.data.ptr, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "strides": strides, "data": data, "version": 3}

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    # -- to the host ---------------------------------------------------------------------------------------------------
    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        if out is None:
            return self._a.copy(order)
        if not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out.dtype != self.dtype or out.shape != self.shape:
            raise TypeError("Shape or dtype mismatch")
        out[...] = self._a
        return out

    def set(self, values: np.ndarray, stream: Any = None) -> None:
        if not isinstance(values, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if values.dtype != self.dtype or values.shape != self.shape:
            raise TypeError(f"Shape or dtype mismatch: {values.shape} {values.dtype}, {self.shape} {self.dtype}")
        self._a[...] = values

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self._a.item()

    def tolist(self) -> Any:
        return self._a.tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self._a.tobytes(order)

    def __float__(self) -> float:
        return float(self._a)

    def __int__(self) -> int:
        return int(self._a)

    def __index__(self) -> int:
        return self._a.__index__()

    def __bool__(self) -> bool:
        return bool(self._a)

    def __len__(self) -> int:
        return len(self._a)

    def __repr__(self) -> str:
        return repr(self._a)

    def __str__(self) -> str:
        return str(self._a)

    def __format__(self, text: str) -> str:
        return format(self._a, text)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return import_module(f"{__package__}.fake_cupy").asarray, (self.get(),)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError("a copy to another device is not emulated")
        capsule = (self._a.copy() if copy else self._a).__dlpack__()
        _dlpack_device_type(capsule).value = 2  # CUDA, so that nobody takes the memory for the host's
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    # -- elements ------------------------------------------------------------------------------------------------------
    def __getitem__(self, key: Any) -> ndarray:
        parts = key if isinstance(key, tuple) else (key,)
        if not any(k is Ellipsis or hasattr(k, "__len__") for k in parts):
            key = (*parts, ...)  # one number is a view, too
        return _wrap(self._a[_index(key)], self)

    def __setitem__(self, key: Any, value: Any) -> None:
        parts = key if isinstance(key, tuple) else (key,)
        if isinstance(value, ndarray) or any(isinstance(k, (ndarray, np.ndarray, list)) for k in parts):
            self._a[_index(key)] = value._a if isinstance(value, ndarray) else value
        else:
            self[key].fill(value)  # nothing that NumPy or a list holds

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        raise TypeError("argument of type 'cupy.ndarray' is not iterable")

    def fill(self, value: Any) -> None:
        kind = "cupy" if isinstance(value, ndarray) else "numpy"
        value = value._a if isinstance(value, ndarray) else np.asarray(value, self.dtype)
        if value.shape != ():
            raise ValueError(f"non-scalar {kind}.ndarray cannot be used for fill")
        self._a.fill(value[()])

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return _wrap(self._a.astype(dtype, order=order))

    def copy(self, order: str = "C") -> ndarray:
        return _wrap(self._a.copy(order))

    def view(self, dtype: Any = None) -> ndarray:
        return _wrap(self._a.view() if dtype is None else self._a.view(dtype), self)

    # -- NumPy's protocols ---------------------------------------------------------------------------------------------
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or ufunc.__name__ not in _UFUNCS or kwargs.keys() - {"out", "dtype", "casting"}:
            return NotImplemented
        if ufunc.__name__ in _COMPARISONS:
            inputs = tuple(x.item() if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in inputs)
        out = kwargs.pop("out", None)
        if out is not None:
            if len(out) != 1:
                raise ValueError("The 'out' parameter must have exactly one array value")
            return _ufunc(ufunc, *inputs, out=out[0], **kwargs)
        return _ufunc(ufunc, *inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        mine = getattr(import_module(f"{__package__}.fake_cupy"), func.__name__, None)
        if func.__module__ != "numpy" or mine is None or any(t not in (ndarray, np.ndarray) for t in types):
            return NotImplemented
        return mine(*args, **kwargs)


def _dlpack_device_type(capsule: Any) -> ctypes.c_int32:
    """The field of a DLManagedTensor that says where the memory is; it follows the data pointer."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.c_int32.from_address(get(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p))


def _allocate(shape: Any, dtype: Any, order: str = "C") -> tuple[np.ndarray, Memory]:
    if dtype.kind not in "biufc":
        raise TypeError(f"Unsupported dtype {dtype}")
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    if any(n < 0 for n in shape):
        raise ValueError("Negative dimensions are not allowed")
    size = dtype.itemsize
    for n in shape:
        size *= int(n)
    memory = Memory(size)
    array = np.ndarray(shape, dtype, memory.bytes(), order=order)
    return array, memory


def _wrap(a: Any, source: ndarray | None = None) -> ndarray:
    """A NumPy result as an array of the device: a view where it lies in the memory of ``source``, else a copy."""
    a = np.asarray(a)
    result = ndarray.__new__(ndarray)
    if source is not None and a.size and _inside(a, source._memory):
        result._a, result._memory = a, source._memory
        result.base = source if source.base is None else source.base
        return result
    order = "F" if a.flags.f_contiguous and not a.flags.c_contiguous else "C"
    result._a, result._memory = _allocate(a.shape, a.dtype, order)
    result._a[...] = a
    result.base = None
    return result


def _inside(a: np.ndarray, memory: Memory) -> bool:
    low, _ = np.lib.array_utils.byte_bounds(a)
    return memory.ptr <= low < memory.ptr + memory.size


def _plain(x: Any) -> Any:
    """What NumPy may compute with: our array's numbers, or a number. A NumPy array is refused, as by CuPy."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def _index(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_index(k) for k in key)
    return key._a if isinstance(key, ndarray) else key


def _ufunc(ufunc: Any, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
    for x in inputs:
        if not isinstance(x, (ndarray, np.generic)) and type(x) not in (bool, int, float, complex):
            raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(out, tuple):
        (out,) = out
    if out is not None and not isinstance(out, ndarray):
        raise TypeError(f"Output arguments type must be cupy.ndarray, not {type(out)}")
    with np.errstate(all="ignore"):  # a device warns of nothing
        if out is None:
            result = ufunc(*map(_plain, inputs), **kwargs)
            return tuple(map(_wrap, result)) if isinstance(result, tuple) else _wrap(result)
        ufunc(*map(_plain, inputs), out=out._a, **kwargs)
        return out


def _defers(x: ndarray, y: Any) -> bool:
    """Whether ``x op y`` is left to the class of ``y``, as NEP 13 has it."""
    missing = object()
    found = getattr(y, "__array_ufunc__", missing)
    if found is not missing:
        return found is None
    return x.__array_priority__ < getattr(y, "__array_priority__", 0)


def _operator(ufunc: Any, kind: str) -> Any:
    def binary(self: ndarray, other: Any) -> Any:
        pair = (other, self) if kind == "reflected" else (self, other)
        if kind == "inplace":
            return _ufunc(ufunc, *pair, out=self)
        if isinstance(other, ndarray):
            return _ufunc(ufunc, *pair)
        return NotImplemented if _defers(self, other) else ufunc(*pair)  # by way of __array_ufunc__

    return binary


_BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift", "matmul": "matmul",
}  # fmt: skip
for _name, _function in _BINARY.items():
    _f = getattr(np, _function)
    setattr(ndarray, f"__{_name}__", _operator(_f, "plain"))
    setattr(ndarray, f"__r{_name}__", _operator(_f, "reflected"))
    setattr(ndarray, f"__i{_name}__", _operator(_f, "inplace"))
for _name, _function in {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _operator(getattr(np, _function), "plain"))
for _name, _function in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
    setattr(ndarray, f"__{_name}__", partialmethod(lambda self, name: _ufunc(getattr(np, name), self), _function))

_COMPARISONS = {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"}
_UFUNCS = {
    "absolute", "add", "arccos", "arcsin", "arctan", "arctan2", "bitwise_and", "bitwise_or", "bitwise_xor", "ceil",
    "copysign", "cos", "cosh", "divide", "equal", "exp", "exp2", "expm1", "fabs", "floor", "floor_divide", "fmax",
    "fmin", "greater", "greater_equal", "invert", "isfinite", "isinf", "isnan", "left_shift", "less", "less_equal",
    "log", "log10", "log1p", "log2", "logical_and", "logical_not", "logical_or", "logical_xor", "matmul", "maximum",
    "minimum", "multiply", "negative", "not_equal", "positive", "power", "reciprocal", "remainder", "right_shift",
    "rint", "sign", "signbit", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "true_divide", "trunc",
}  # fmt: skip


def _delegate(function: Any, name: str) -> Any:
    """CuPy's function of that name: arrays in its arguments must be the device's, and so are those it returns."""

    def convert(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(convert(e) for e in x)
        return _plain(x)

    def call(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out")
        if kwargs.keys() & {"where", "initial", "casting"}:
            raise TypeError(f"{name}() got an unexpected keyword argument")
        with np.errstate(all="ignore"):
            result = function(*convert(args), **{k: convert(v) for k, v in kwargs.items()})
        if out is not None:
            return out
        sources = [a for a in args if isinstance(a, ndarray)]
        wrap = lambda r: _wrap(r, sources[0] if sources else None)  # noqa: E731
        if isinstance(result, (list, tuple)):
            return type(result)(wrap(r) for r in result)
        return wrap(result)

    call.__name__ = name
    return call


_METHODS = {
    "all", "any", "argmax", "argmin", "argsort", "clip", "cumsum", "diagonal", "dot", "flatten", "max", "mean", "min",
    "prod", "ravel", "repeat", "reshape", "round", "sort", "squeeze", "std", "sum", "swapaxes", "take", "trace",
    "transpose", "var",
}  # fmt: skip
for _name in _METHODS:
    setattr(ndarray, _name, _delegate(getattr(np.ndarray, _name), _name))
