"""Tensor, and ``apply``, which runs an op and records it. This file knows no op.

An op is a function of arrays that returns its result and a ``vjp``, the function that turns the result's gradient into
the inputs' gradients; ``apply`` runs it and, where a gradient is wanted, leaves a node on the result.
Next: tape.py for the nodes and the way back, functional/ for the ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy import ndarray

from .kernels._backend import Array, device_of, empty, here, moved, namespace, on, place
from .kernels._check import expect_one_device, integer, plain
from .kernels.reduce import extreme
from .tape import (
    Node,
    _state,
    add_to,
    copied,
    enable_grad,
    is_grad_enabled,
    no_grad,
    note_change,
    set_grad_enabled,
    walk,
)

__all__ = ["Tensor", "apply", "enable_grad", "is_grad_enabled", "no_grad", "set_grad_enabled", "tensor"]

Forward = Callable[..., tuple[Any, ...]]  # (y, vjp) or (y, vjp, extra)
T = TypeVar("T", "Tensor", Array)

_methods: dict[str, Callable[..., Any]] = {}


class Tensor:
    """An array with a gradient: ``array`` holds the numbers, ``grad`` the gradient after ``backward``.

    ``device`` is where the array lives. Arithmetic, comparisons, indexing, reductions and shaping work as in PyTorch;
    everything that takes a Tensor returns one.
    """

    __slots__ = ("array", "_grad", "_node", "_requires_grad", "__weakref__")
    __array_priority__ = 1000  # so that ndarray + Tensor comes here

    array: Array

    def __init__(self, array: Array, requires_grad: bool = False) -> None:
        if requires_grad and array.dtype.kind != "f":
            raise TypeError(f"requires_grad needs a floating-point tensor, got {array.dtype}")
        self.array = array
        self._requires_grad = requires_grad
        self._grad: Tensor | None = None
        self._node: Node | None = None

    # -- what it is ------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def device(self) -> str:
        """``"cpu"``, or ``"cuda:<number>"`` for an array of CuPy."""
        return "cpu" if isinstance(self.array, np.ndarray) else place(self.array)

    @property
    def is_leaf(self) -> bool:
        """Whether it is no result of a recorded op, so that ``backward`` leaves its gradient in ``grad``."""
        return self._node is None

    def size(self, dim: int | None = None) -> tuple[int, ...] | int:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return int(self.array.size)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __repr__(self) -> str:
        text = np.array2string(np.asarray(_on_host(self.array)), separator=", ", prefix="tensor(")
        notes = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        if self.device != "cpu":
            notes += f", device='{self.device}'"
        if self._node is not None:
            notes += f", grad_fn={self._node.name}"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"tensor({text}{notes})"

    # -- in and out ------------------------------------------------------------------------------------------------
    def numpy(self) -> Array:
        """The numbers as a NumPy array that shares memory (a copy from a GPU). Raises if a gradient would be lost."""
        if self.requires_grad:
            raise RuntimeError("numpy() on a tensor that requires grad: call .detach().numpy()")
        return _on_host(self.array)

    def item(self) -> Any:
        if self.array.size != 1:
            raise ValueError(f"item() needs a tensor of one element, got shape {self.shape}")
        return self.array.item()

    def tolist(self) -> Any:
        return self.array.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.requires_grad:
            raise RuntimeError("conversion to NumPy of a tensor that requires grad: call .detach() first")
        host = _on_host(self.array)
        if copy:
            return np.array(host, dtype=dtype)
        return host if dtype is None else host.astype(dtype, copy=False)

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise RuntimeError("DLPack export of a tensor that requires grad: call .detach() first")
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return cast("tuple[int, int]", self.array.__dlpack_device__())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor can be used as an index, got {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise ValueError(f"truth value of a tensor of shape {self.shape} is ambiguous; use .any() or .all()")
        return bool(self.item())

    __hash__ = object.__hash__

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are wanted of it: set for leaves, true of every result of theirs."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.requires_grad_(wanted)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward`` left, or None. Set it to None to forget it, or to a tensor or an array."""
        return self._grad

    @grad.setter
    def grad(self, gradient: Tensor | Array | None) -> None:
        if gradient is not None and not isinstance(gradient, Tensor):
            if not isinstance(gradient, np.ndarray) and device_of(gradient) is None:
                raise TypeError(f"grad: expected a Tensor, an array or None, got {type(gradient).__name__}")
            gradient = Tensor(plain("grad", "gradient", gradient))
        if gradient is not None and (gradient.shape != self.shape or gradient.dtype != self.dtype):
            raise ValueError(
                f"grad: the tensor is {self.shape} {self.dtype} but the gradient is {gradient.shape} "
                f"{gradient.dtype}: they must agree"
            )
        if gradient is not None:
            expect_one_device("grad", tensor=self, gradient=gradient)
        self._grad = gradient

    # -- gradients -------------------------------------------------------------------------------------------------
    def detach(self) -> Tensor:
        """The same array without its history."""
        return Tensor(self.array)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        if self._node is not None and not requires_grad:
            raise RuntimeError("requires_grad of a result cannot be taken away: use .detach()")
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"requires_grad needs a floating-point tensor, got {self.dtype}")
        self._requires_grad = bool(requires_grad)
        return self

    def retain_grad(self) -> None:
        """Ask ``backward`` to leave this result's gradient in ``grad`` too."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad() on a tensor that does not require grad")
        if self._node is not None:
            self._node.retained = self

    def backward(self, gradient: Tensor | Array | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor with respect to every leaf that requires one to the leaf's ``grad``.

        ``gradient`` is the gradient of some scalar with respect to this tensor; it may be left out where this tensor
        has one element. The graph is freed on the way unless ``retain_graph``.
        """
        if not self.requires_grad:
            raise RuntimeError("backward() on a tensor that does not require grad: no input had requires_grad=True")
        if gradient is None:
            if self.array.size != 1:
                raise RuntimeError(f"backward() on shape {self.shape}: pass gradient=, or reduce it to a scalar first")
            seed = empty(self.shape, self.array)
            with on(seed):
                seed[...] = 1
        else:
            seed = gradient.array if isinstance(gradient, Tensor) else gradient
            if device_of(seed) is None:
                seed = np.asarray(seed)
            expect_one_device("backward", tensor=self, gradient=seed)
            if seed.shape != self.shape:
                raise ValueError(f"backward(): gradient has shape {seed.shape}, the tensor has {self.shape}")
            with on(seed):
                seed = seed.astype(self.dtype, copy=False)
        with no_grad():
            gradients = {self: copied(seed)} if self._node is None else walk(self._node, seed, retain_graph)
        for tensor, dx in gradients.items():
            if tensor._grad is None:
                tensor._grad = Tensor(dx)
            else:
                if not getattr(tensor._grad.array.flags, "writeable", True):  # one that was set: it stays as it is
                    tensor._grad = Tensor(copied(tensor._grad.array))
                add_to(tensor._grad.array, dx)
                note_change(tensor._grad.array)

    # -- in place --------------------------------------------------------------------------------------------------
    # Where a gradient flows, the change is an op like any other, and its result, a new array, becomes this tensor's:
    # what earlier ops kept stays as it was. Else the numbers are overwritten, which the tape notes for who kept them.
    def copy_(self, source: Tensor | Array) -> Tensor:
        """Overwrite the numbers; under ``no_grad`` where this tensor is a leaf that requires grad."""
        source = source.to(self.device) if isinstance(source, Tensor) else _beside(source, self.array)
        return self.change("copy_", lambda before: _call("setitem", before, Ellipsis, source))

    def fill_(self, value: float) -> Tensor:
        return self.change("fill_", lambda before: _call("setitem", before, Ellipsis, value))

    def zero_(self) -> Tensor:
        return self.fill_(0)

    def check_change(self, name: str) -> None:
        """Raise unless the numbers may be changed in place: not of a leaf that requires grad, nor read-only ones."""
        if self.requires_grad and self.is_leaf and is_grad_enabled():
            raise RuntimeError(
                f"{name}: in-place change of a leaf tensor that requires grad; wrap it in fastnn.no_grad(), or use the "
                "out-of-place form"
            )
        if not getattr(self.array.flags, "writeable", True):
            raise ValueError(f"{name}: the tensor's array is read-only")

    def change(self, name: str, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``self = function(self)``, keeping shape and dtype: what in-place ops are made of."""
        self.check_change(name)
        before = Tensor(self.array)
        before._requires_grad, before._node = self._requires_grad, self._node
        result = function(before)
        if result.shape != self.shape:
            raise ValueError(f"in-place {name}: the result's shape {result.shape} is not the tensor's {self.shape}")
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise TypeError(f"in-place {name}: the result's dtype {result.dtype} does not fit {self.dtype}")
        if result.requires_grad:
            result = result.to(self.dtype)
            self.array, self._node, self._requires_grad = result.array, result._node, True
        else:
            with on(self.array):
                self.array[...] = result.array
            note_change(self.array)
        return self

    def __iadd__(self, other: Any) -> Tensor:
        return self.change("+=", lambda before: before + other)

    def __isub__(self, other: Any) -> Tensor:
        return self.change("-=", lambda before: before - other)

    def __imul__(self, other: Any) -> Tensor:
        return self.change("*=", lambda before: before * other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self.change("/=", lambda before: before / other)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.change("assignment to a slice", lambda before: _call("setitem", before, _plain(key), value))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # -- ops: each looks up the function that functional/ registered under its name ----------------------------------
    def __add__(self, other: Any) -> Tensor:
        return _call("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _call("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _call("sub", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _call("sub", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _call("mul", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _call("mul", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _call("div", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _call("div", other, self)

    def __pow__(self, exponent: Any) -> Tensor:
        return _call("pow", self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return _call("pow", base, self)

    def __matmul__(self, other: Any) -> Tensor:
        return _call("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _call("matmul", other, self)

    def __neg__(self) -> Tensor:
        return _call("neg", self)

    def __abs__(self) -> Tensor:
        return _call("abs", self)

    def __getitem__(self, key: Any) -> Tensor:
        return _call("getitem", self, _plain(key))

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return _compare(np.equal, self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _compare(np.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return _compare(np.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return _compare(np.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _compare(np.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _compare(np.greater_equal, self, other)

    def __and__(self, other: Any) -> Tensor:
        return _compare(np.bitwise_and, self, other)

    def __or__(self, other: Any) -> Tensor:
        return _compare(np.bitwise_or, self, other)

    def __xor__(self, other: Any) -> Tensor:
        return _compare(np.bitwise_xor, self, other)

    def __invert__(self) -> Tensor:
        if self.dtype.kind not in "biu":
            raise TypeError(f"~ needs booleans or integers, got {self.dtype}")
        return Tensor(_whole(namespace(self.array).invert(self.array)))

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return _call("sum", self, dim, keepdim)

    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return _call("mean", self, dim, keepdim)

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The largest element, or with ``dim`` the pair (values, indices); of equals, the first gets the gradient."""
        return _call("max", self, dim, keepdim)

    def min(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The smallest element; with ``dim``, the pair (values, indices) along it."""
        return _call("min", self, dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return _index_of(np.argmax, self, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return _index_of(np.argmin, self, dim, keepdim)

    def any(self) -> Tensor:
        return Tensor(_whole(namespace(self.array).any(self.array)))

    def all(self) -> Tensor:
        return Tensor(_whole(namespace(self.array).all(self.array)))

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        return _call("reshape", self, *shape)

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        return _call("flatten", self, start_dim, end_dim)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        return _call("transpose", self, dim0, dim1)

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        return _call("permute", self, *dims)

    def squeeze(self, dim: int | None = None) -> Tensor:
        return _call("squeeze", self, dim)

    def unsqueeze(self, dim: int) -> Tensor:
        return _call("unsqueeze", self, dim)

    def expand(self, *shape: int | Sequence[int]) -> Tensor:
        return _call("expand", self, *shape)

    @property
    def T(self) -> Tensor:  # noqa: N802 (PyTorch's name)
        return _call("permute", self, tuple(range(self.ndim))[::-1])

    def exp(self) -> Tensor:
        return _call("exp", self)

    def log(self) -> Tensor:
        return _call("log", self)

    def sqrt(self) -> Tensor:
        return _call("sqrt", self)

    def abs(self) -> Tensor:
        return _call("abs", self)

    def pow(self, exponent: Any) -> Tensor:
        return _call("pow", self, exponent)

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        return _call("clip", self, min, max)

    clamp = clip

    def tanh(self) -> Tensor:
        return _call("tanh", self)

    def sigmoid(self) -> Tensor:
        return _call("sigmoid", self)

    def relu(self) -> Tensor:
        return _call("relu", self)

    def softmax(self, dim: int) -> Tensor:
        return _call("softmax", self, dim)

    def log_softmax(self, dim: int) -> Tensor:
        return _call("log_softmax", self, dim)

    def matmul(self, other: Any) -> Tensor:
        return _call("matmul", self, other)

    def clone(self) -> Tensor:
        return _call("clone", self)

    def contiguous(self) -> Tensor:
        return self if self.array.flags.c_contiguous else self.clone()

    def to(self, *targets: Any, dtype: Any = None, device: str | None = None) -> Tensor:
        """This tensor with another dtype or on another device: ``to(numpy.float64)``, ``to("cuda")``, or by keyword.

        ``to(other)`` takes both from another tensor. What is so already is returned as it is.
        """
        for target in targets:
            if isinstance(target, Tensor):
                device, dtype = target.device, target.dtype
            elif isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
                device = target
            else:
                dtype = target
        there = self if device is None else _call("move", self, device)
        return there if dtype is None or np.dtype(dtype) == self.dtype else _call("cast", there, np.dtype(dtype))

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector or a number as it is."""
        if self.ndim > 2:
            raise ValueError(f"t() needs at most 2 dimensions, got shape {self.shape}; use transpose or permute")
        return self.T

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def cuda(self, device: int | str | None = None) -> Tensor:
        """This tensor on a GPU: CuPy's current one, or the one of this number."""
        return self.to(device=cuda_name(device))

    def float(self) -> Tensor:
        return self.to(np.float32)

    def double(self) -> Tensor:
        return self.to(np.float64)

    def long(self) -> Tensor:
        return self.to(np.int64)


def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A new tensor that owns a copy of ``data``: a number, nested lists, an array, a Tensor.

    Python floats become float32 and Python ints int64, as in PyTorch; arrays keep their dtype, and arrays of a GPU stay
    there if ``device`` names no other.
    """
    there = here("tensor", device)
    if isinstance(data, Tensor):
        data = data.array
    if isinstance(data, np.ndarray):
        data = plain("tensor", "data", data)
    elif (gpu := device_of(data)) is not None:
        with gpu.current():
            array = data.astype(data.dtype if dtype is None else dtype, order="C", copy=True)
        return Tensor(array if device is None else moved(array, there), requires_grad)
    try:
        array = np.array(data, dtype=dtype, order="C")
    except (TypeError, ValueError) as error:  # a ragged list, a dtype that NumPy does not know
        raise type(error)(f"tensor: {error}") from None
    if dtype is None and not hasattr(data, "dtype") and array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: cannot hold {array.dtype} (from {type(data).__name__}); use numbers or booleans")
    return Tensor(moved(array, there), requires_grad)


def cuda_name(device: int | str | None) -> str:
    """The name of a GPU that PyTorch's ``cuda(device)`` is given."""
    return (
        "cuda" if device is None else device if isinstance(device, str) else f"cuda:{integer('cuda', 'device', device)}"
    )


def register(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for functional/: the function behind ``Tensor.<name>``."""

    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        _methods[name] = function
        return function

    return keep


def apply(name: str, forward: Forward, *inputs: Any) -> Any:
    """Run an op. ``forward(*arrays)`` returns ``(y, vjp)`` or ``(y, vjp, extra)``.

    ``inputs`` are Tensors, arrays, numbers or None. With no Tensor among them the result is the plain array ``y``; else
    a Tensor, recorded if an input requires grad. ``vjp(dy, need)`` returns one gradient (or None) per input, and
    ``need[i]`` says whether input i wants one; each is a fresh array or a view of ``dy``, never one that the vjp keeps.
    ``extra`` (an array that is no function to differentiate, such as indices) is returned beside ``y``, wrapped alike.
    """
    arrays: list[Any] = []
    targets: list[Node | Tensor | None] = []  # where the gradients go
    need: list[bool] = []
    tensors = recorded = False
    there = None  # an array that is on a GPU
    for x in inputs:
        wanted = False
        if isinstance(x, Tensor):
            tensors = True
            array = x.array
            if array.__class__ is not ndarray:
                there = array
            if x._requires_grad:
                wanted = recorded = True
        else:
            array = x if x.__class__ is ndarray or not isinstance(x, ndarray) else plain(name, "input", x)
        arrays.append(array)
        targets.append((x._node or x) if wanted else None)
        need.append(wanted)
    if there is None:
        results = forward(*arrays)
    else:
        if len({x.__class__ for x in arrays if hasattr(x, "dtype")}) > 1:
            expect_one_device(name, **{f"input {i}": x for i, x in enumerate(arrays)})
        with on(there):
            results = forward(*arrays)
    y = results[0]
    result = Tensor(y) if tensors else y
    if recorded and _state.enabled:
        result._requires_grad = True
        result._node = Node(name, results[1], targets, need)
    if len(results) == 2:
        return result
    return (result, *(Tensor(e) if tensors else e for e in results[2:]))


def _call(name: str, *arguments: Any) -> Any:
    return _methods[name](*arguments)


def _plain(key: Any) -> Any:
    """An index with arrays in place of Tensors: copies, so that the gradient finds its way when they change."""
    if isinstance(key, tuple):
        return tuple(_plain(k) for k in key)
    if not isinstance(key, Tensor):
        return key
    with on(key.array):
        return key.array.copy()


def _compare(function: Any, a: Tensor, b: Any) -> Tensor:
    b = b.array if isinstance(b, Tensor) else b
    try:
        if a.array.__class__ is not np.ndarray:
            function = getattr(namespace(a.array), function.__name__)
        return Tensor(_whole(function(a.array, b)))
    except TypeError:
        raise TypeError(f"{function.__name__}: cannot compare {a.dtype} with {type(b).__name__}") from None
    except ValueError:
        raise ValueError(
            f"{function.__name__}: shapes {a.shape} and {getattr(b, 'shape', ())} do not broadcast: from the right, "
            "sizes must be equal or 1"
        ) from None


def _index_of(function: Callable[..., Any], x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    if dim is not None:
        size = max(x.ndim, 1)
        if not -size <= integer(function.__name__, "dim", dim) < size:
            raise ValueError(f"{function.__name__}: dim {dim} is out of range for shape {x.shape}: {-size}..{size - 1}")
    if 0 in (x.shape if dim is None else x.shape[dim : dim + 1 or None]):
        raise ValueError(f"{function.__name__}: no elements to choose from in shape {x.shape}")
    axis = 0 if dim is None else dim % max(x.ndim, 1)
    flat = x.array.reshape(-1) if dim is None or x.ndim == 0 else x.array
    if (found := extreme(flat, axis, function is np.argmin)) is not None:
        kept = (1,) * (x.ndim if dim is None else min(1, x.ndim)) if keepdim else ()
        return Tensor(found[1].reshape(kept if dim is None else x.shape[:axis] + kept + x.shape[axis + 1 :]))
    return Tensor(_whole(getattr(namespace(x.array), function.__name__)(x.array, axis=dim, keepdims=keepdim)))


def _on_host(array: Array) -> Array:
    return array if isinstance(array, np.ndarray) else array.get()


def _whole(y: Any) -> Array:
    """NumPy makes scalars of 0-d results; an array again."""
    return np.asarray(y) if isinstance(y, np.generic) else y


def _beside(x: Any, like: Array) -> Any:
    """An array on the device of ``like``; what is no array (a number) as it is."""
    return moved(x, like) if isinstance(x, np.ndarray) or device_of(x) is not None else x
