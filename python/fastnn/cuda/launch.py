"""What stands between a host function and a kernel: ``@kernel``, which registers host functions and checks what they
are given, and ``Launcher``, which checks and casts what they pass on to one ``__global__`` function.

CuPy itself checks nothing: a Python float would arrive as a double, an int as 64 bits, any array as a pointer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from math import prod
from operator import index
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from .. import _core
from .sources import Parameter, signature
from .table import UNITS

if TYPE_CHECKING:
    from .device import Device

__all__ = ["Launcher", "Spec", "Table", "blocks", "ctype", "host_functions", "kernel"]

F = TypeVar("F", bound=Callable[..., None])

_CTYPES = {  # by dtype: its name would take 2 us of every launch
    np.dtype("float32"): "float",
    np.dtype("float64"): "double",
    np.dtype("int32"): "int",
    np.dtype("int64"): "int64_t",
    np.dtype("uint8"): "uint8_t",
    np.dtype("bool"): "bool",
}
_SPEC_DTYPES = {"f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8", "bool": "bool"}
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NULL = np.uint64(0)  # what CuPy passes as a null pointer: None would be no argument at all


def ctype(dtype: Any) -> str:
    """A dtype in the words of a name expression: ``float``, ``double``, ``int64_t``, ..."""
    return _CTYPES[dtype]


def blocks(n: int, threads: int = 256, per_thread: int = 1) -> int:
    """Blocks of a grid-stride loop over ``n``: every thread has ``per_thread`` turns, more beyond 2^20 blocks."""
    return min(-(-n // (threads * per_thread)), 1 << 20)


# -- host functions ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Argument:
    name: str
    optional: bool
    dtype: np.dtype[Any] | None  # None: the one float dtype that the call's arrays share


@dataclass(frozen=True)
class Spec:
    """A kernel's arguments: arrays (inputs, then outputs), then numbers; csrc/kernels.h describes the text."""

    arrays: tuple[Argument, ...]
    numbers: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (*(a.name for a in self.arrays), *self.numbers)

    @staticmethod
    def read(text: str) -> Spec:
        arrays, _, numbers = text.partition("|")
        words = arrays.replace("->", ",").replace(" ", "").split(",")
        return Spec(
            tuple(Spec._argument(word) for word in words if word),
            tuple(word.strip() for word in numbers.split(",") if word.strip()),
        )

    @staticmethod
    def _argument(word: str) -> Argument:
        name, _, dtype = word.partition("=")[0].rstrip("?").partition(":")
        optional = word.partition("=")[0].endswith("?") or name.endswith("?")
        kind = _SPEC_DTYPES[dtype.rstrip("?")] if dtype else None
        return Argument(name.rstrip("?"), optional, np.dtype(kind) if kind else None)


_host: dict[str, Callable[..., None]] = {}


@overload
def kernel(function: F) -> F: ...
@overload
def kernel(*, spec: str | None = None, host: tuple[str, ...] = ()) -> Callable[[F], F]: ...
def kernel(function: F | None = None, *, spec: str | None = None, host: tuple[str, ...] = ()) -> Any:
    """Decorator of host functions ``name(gpu, *arrays, *numbers)``: the CUDA side of the kernel of that name.

    Its arguments are those of the CPU's spec; a kernel that only CUDA has brings its own ``spec``. Each call is
    checked: how many there are; C-contiguous arrays of this device, of the spec's dtypes; None only where it may be.
    The arrays named in ``host`` are small tables in main memory, which the function moves itself.
    """
    if function is None:
        return partial(kernel, spec=spec, host=host)
    op = function.__name__
    found = Spec.read(_core.specs[op] if spec is None else spec)
    count, arrays = len(found.names), [(a.name, a.optional, a.dtype) for a in found.arrays]

    def checked(gpu: Device, *args: Any) -> None:
        if len(args) != count:
            raise TypeError(f"{op}: takes {count} arguments ({', '.join(found.names)}), got {len(args)}")
        real, array_type, alone = None, gpu.array_type, not gpu.several
        for (name, optional, dtype), x in zip(arrays, args):
            if alone and type(x) is array_type:
                found_dtype = x.dtype
                if real is None and dtype is None and found_dtype in _FLOATS:
                    real = found_dtype
                if found_dtype == (real if dtype is None else dtype) and x.flags.c_contiguous:
                    continue  # the usual argument; all others are looked at with words
            if (x is None and optional) or name in host:
                continue
            for a in x if isinstance(x, (list, tuple)) else (x,):
                real = _check(op, gpu, name, dtype, a, real)
        if alone:
            function(gpu, *args)
        else:
            with gpu.current():
                function(gpu, *args)

    checked.__name__, checked.__doc__, checked.__wrapped__ = op, function.__doc__, function  # type: ignore[attr-defined]
    checked.spec = found  # type: ignore[attr-defined]
    _host[op] = checked
    return checked


def _check(op: str, gpu: Device, name: str, wanted: Any, x: Any, real: Any) -> Any:
    """Raise unless the kernel can take ``x`` as this argument; returns the float dtype that its arrays share."""
    if not gpu.holds(x):
        if x is None:
            raise ValueError(f"{op}: '{name}' is required, got None")
        raise TypeError(f"{op}: '{name}' must be an array on {gpu.label}, got {where(x)}; move one with .to(...)")
    dtype = x.dtype
    if wanted is not None:
        if dtype != wanted:
            raise TypeError(f"{op}: '{name}' must be {wanted}, got {dtype}")
    elif real is None:
        if dtype not in _FLOATS:
            raise TypeError(f"{op}: '{name}' must be float32 or float64, got {dtype}")
        real = dtype
    elif dtype != real:
        raise TypeError(f"{op}: '{name}' is {dtype}, the arrays before it are {real}: they must agree")
    if not x.flags.c_contiguous:
        raise ValueError(f"{op}: '{name}' must be C-contiguous")
    return real


def where(x: Any) -> str:
    """Where an array is, in words for a message."""
    from .device import holder

    if isinstance(x, np.ndarray):
        return "a NumPy array (on cpu)"
    gpu = holder(x)
    return type(x).__name__ if gpu is None else f"an array on {gpu.label}"


@cache
def host_functions() -> dict[str, Callable[..., None]]:
    """Every host function by its kernel's name: all rooms of this folder are imported."""
    package = __name__.rpartition(".")[0]
    for module in iter_modules(import_module(package).__path__):
        if not module.name.startswith("_"):
            import_module(f"{package}.{module.name}")
    return _host


class Table:
    """The host functions, bound to one device: what ``fastnn.kernels`` calls in place of the CPU's table."""

    def __init__(self, gpu: Device) -> None:
        self._gpu = gpu

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in host_functions():
            raise NotImplementedError(f"{name}: there is no CUDA kernel of this name; move the arrays to the CPU")
        bound = partial(host_functions()[name], self._gpu)
        setattr(self, name, bound)
        return bound


# -- launches ----------------------------------------------------------------------------------------------------------
class Launcher:
    """One kernel on one device: its arguments are checked and cast as its signature says, then it runs on the current
    stream. A grid with a 0 launches nothing."""

    def __init__(self, gpu: Device, unit: str, expression: str) -> None:
        self.name = f"{unit}: {expression}"
        if unit not in UNITS or expression not in UNITS[unit].kernels:
            raise KeyError(f"{self.name} is not in the table of kernels (fastnn/cuda/table.py)")
        self.kernel = UNITS[unit].kernels[expression]
        if not self.kernel.fits(gpu.arch):
            raise RuntimeError(
                f"{self.name} needs compute capability {self.kernel.arch / 10} or newer and {self.kernel.shared} bytes "
                f"of shared memory; {gpu.label} has {gpu.arch / 10} and {gpu.shared_limit}"
            )
        self.parameters = signature(UNITS[unit].file, expression)
        self.casts = [_cast(self.name, gpu, parameter) for parameter in self.parameters]
        self.steps = [(cast, *_usual(gpu, p)) for cast, p in zip(self.casts, self.parameters)]
        self.known: dict[Any, tuple[tuple[int, ...], tuple[int, ...]]] = {}  # grids and blocks that were checked
        self.run = gpu.load(unit, expression)

    def __call__(self, grid: int | tuple[int, ...], block: int | tuple[int, ...], args: Any, shared: int) -> None:
        if len(args) != len(self.casts):
            names = ", ".join(p.name for p in self.parameters)
            raise TypeError(f"{self.name} takes {len(self.casts)} arguments ({names}), got {len(args)}")
        ready = []
        for x, (cast, kind, dtype, known) in zip(args, self.steps):
            if type(x) is not kind:
                ready.append(cast(x))
            elif dtype is not None:  # an array
                ready.append(x if x.dtype == dtype and x.flags.c_contiguous else cast(x))
            elif (made := known.get(x)) is not None:
                ready.append(made)
            else:
                ready.append(made := cast(x))
                if len(known) < KNOWN and (x or kind is int):  # -0.0 is another number, but the same key, as 0.0
                    known[x] = made
        sizes = self.known.get((grid, block, shared))
        if sizes is None:
            sizes = self._sizes(grid, block, shared)
        if sizes[0]:
            self.run(*sizes, tuple(ready), shared)

    def _sizes(self, grid: Any, block: Any, shared: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Grid and block as tuples, checked; a grid that launches nothing as (). They are kept: a network's recur."""
        asked = grid, block, shared
        grid = (grid,) if isinstance(grid, int) else grid
        block = (block,) if isinstance(block, int) else block
        size = prod(block)
        if not 0 < size <= self.kernel.threads or not 0 <= shared <= self.kernel.shared:
            raise ValueError(
                f"{self.name}: {size} threads and {shared} bytes of shared memory, where its row of the table allows "
                f"{self.kernel.threads} and {self.kernel.shared}"
            )
        if len(grid) > 3 or min(grid) < 0 or grid[0] >= 2**31 or max(grid[1:], default=0) >= 2**16:
            raise ValueError(f"{self.name}: grid {grid} is beyond (2^31 - 1, 65535, 65535)")
        if len(self.known) >= 256:
            self.known.clear()
        self.known[asked] = (grid if min(grid) > 0 else (), block)
        return self.known[asked]


KNOWN = 256
"""Numbers and structs that a launcher keeps, ready to be passed on."""


def _usual(gpu: Device, p: Parameter) -> tuple[Any, Any, dict[Any, Any]]:
    """The type of the usual argument; its dtype if that is an array; else those that were cast before."""
    if p.pointer:
        return None if gpu.several else gpu.array_type, p.dtype, {}
    if p.dtype.fields or p.dtype.kind == "b":
        return None, None, {}
    return int if p.dtype.kind in "iu" else float, None, {}


# Each cast is a function of one argument that gives what CuPy passes on unchanged, or raises. They run a hundred times
# in a training step: first comes a test that lets the usual argument through, then the words for all others.
def _cast(kernel: str, gpu: Device, p: Parameter) -> Callable[[Any], Any]:
    what = f"{kernel}: '{p.name}'"
    if p.pointer:
        return _pointer(what, gpu, p.dtype)
    if p.dtype.fields:
        return _struct(what, p.dtype)
    if p.dtype.kind in "iu":
        limits = np.iinfo(p.dtype)
        return _integer(what, p.dtype.type, int(limits.min), int(limits.max))
    return (_boolean if p.dtype.kind == "b" else _real)(what, p.dtype.type)


def _pointer(what: str, gpu: Device, dtype: Any) -> Callable[[Any], Any]:
    def cast(x: Any) -> Any:
        if x is None:
            return _NULL
        if not gpu.holds(x):
            raise TypeError(f"{what} must be an array on {gpu.label}, got {where(x)}")
        if x.dtype != dtype:
            raise TypeError(f"{what} must be {dtype}, got {x.dtype}")
        if not x.flags.c_contiguous:
            raise ValueError(f"{what} must be C-contiguous")
        return x

    return cast


def _integer(what: str, kind: Any, least: int, most: int) -> Callable[[Any], Any]:
    def cast(x: Any) -> Any:
        if type(x) is not int:
            try:
                x = index(x)
            except TypeError:
                raise TypeError(f"{what} must be an int, got {x!r}") from None
        if not least <= x <= most:
            raise OverflowError(f"{what} must be {np.dtype(kind)}, got {x}")
        return kind(x)

    return cast


def _real(what: str, kind: Any) -> Callable[[Any], Any]:
    most = float(np.finfo(kind).max)

    def cast(x: Any) -> Any:
        if (type(x) is float or type(x) is int) and -most <= x <= most:
            return kind(x)
        if not isinstance(x, (float, int, np.floating, np.integer)):
            raise TypeError(f"{what} must be a number, got {x!r}")
        with np.errstate(over="ignore"):  # inf, as in C
            return kind(x)

    return cast


def _boolean(what: str, kind: Any) -> Callable[[Any], Any]:
    def cast(x: Any) -> Any:
        if not isinstance(x, (bool, int, np.bool_)):
            raise TypeError(f"{what} must be a bool, got {x!r}")
        return kind(x)

    return cast


def _struct(what: str, dtype: Any) -> Callable[[Any], Any]:
    names = tuple(dtype.names)
    whole = [name for name in names if dtype[name].kind in "iu"]
    known: dict[int, tuple[Any, Any]] = {}  # by the tuple's identity: equal ones may differ in their fields' types

    def cast(x: Any) -> Any:
        if type(x) is not tuple:
            return make(x)
        before = known.get(id(x))
        if before is None:
            if len(known) >= KNOWN:
                known.clear()
            before = known[id(x)] = x, make(x)  # holds on to x: no other has its identity
        return before[1]

    def make(x: Any) -> Any:
        if isinstance(x, np.ndarray) and x.dtype == dtype and x.shape == ():
            return x
        if isinstance(x, dict):
            if set(x) != set(names):
                raise TypeError(f"{what} takes the fields {', '.join(names)}, got {', '.join(map(str, x))}")
            x = tuple(x[name] for name in names)
        if not isinstance(x, (tuple, list)) or len(x) != len(names):
            raise TypeError(f"{what} takes the fields {', '.join(names)}, got {x!r}")
        fields = dict(zip(names, x))
        for name in whole:
            if isinstance(fields[name], float):
                raise TypeError(f"{what}.{name} must be an int, got {fields[name]!r}")
        made = np.zeros((), dtype)  # and so is what lies between the fields
        try:
            made[()] = tuple(x)
            return made
        except (TypeError, ValueError, OverflowError) as error:
            raise type(error)(f"{what}: {error}") from None

    return cast
