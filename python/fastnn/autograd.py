"""Tensor and tape: reverse-mode differentiation. This file knows no op.

An op is a function of arrays that returns its result and a ``vjp``, the function that turns the result's gradient into
the inputs' gradients; ``apply`` runs it and, where a gradient is wanted, leaves a ``Node`` on the result. ``backward``
walks the nodes from the newest to the oldest: a node's consumers are always newer than the node, so that when its turn
comes its gradient is complete. Next: functional/, where the ops are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar, cast

import numpy as np

from .kernels._backend import Array
from .kernels._check import integer, plain

__all__ = ["Tensor", "apply", "enable_grad", "is_grad_enabled", "no_grad", "set_grad_enabled", "tensor"]

Vjp = Callable[[Array, Sequence[bool]], Sequence["Array | None"]]
Forward = Callable[..., tuple[Any, ...]]  # (y, vjp) or (y, vjp, extra)
T = TypeVar("T", "Tensor", Array)

_clock = count()
_state = threading.local()
_methods: dict[str, Callable[..., Any]] = {}


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require gradients are recorded in this thread."""
    return getattr(_state, "enabled", True)


class no_grad:  # noqa: N801 (PyTorch's name)
    """Context manager and decorator under which nothing is recorded: for evaluation and for updating parameters."""

    _mode = False

    def __enter__(self) -> None:
        stack = _state.__dict__.setdefault("stack", [])
        stack.append(is_grad_enabled())
        _state.enabled = self._mode

    def __exit__(self, *exception: object) -> None:
        _state.enabled = _state.stack.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _under(type(self), function)


def _under(manager: Callable[[], no_grad], function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, run inside a new context manager each time."""
    from functools import wraps

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with manager():
            return function(*args, **kwargs)

    return wrapped


class enable_grad(no_grad):  # noqa: N801 (PyTorch's name)
    """Context manager and decorator that turns recording on again inside ``no_grad``."""

    _mode = True


class set_grad_enabled(no_grad):  # noqa: N801 (PyTorch's name)
    """Turns recording on or off for this thread: called alone at once, or as context manager or decorator."""

    def __init__(self, mode: bool) -> None:
        self._mode, self._before = bool(mode), is_grad_enabled()
        _state.enabled = self._mode

    def __enter__(self) -> None:
        _state.__dict__.setdefault("stack", []).append(self._before)
        _state.enabled = self._mode

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        _state.enabled = self._before  # a decorator changes nothing until the function is called
        return _under(lambda: set_grad_enabled(self._mode), function)


class Node:
    """One recorded op: its inputs, the nodes they came from and whether they want gradients, as they were then; its
    vjp, and which arrays the vjp keeps, each at which version."""

    __slots__ = ("name", "inputs", "sources", "need", "vjp", "kept", "order", "retained")

    def __init__(self, name: str, inputs: tuple[Tensor | None, ...], vjp: Vjp | None) -> None:
        self.name, self.inputs, self.vjp = name, inputs, vjp
        self.sources = [None if x is None else x._node for x in inputs]
        self.need = [x is not None and x._requires_grad for x in inputs]
        self.order = next(_clock)
        self.kept: list[tuple[_Version, int]] = []
        self.retained: Tensor | None = None

    def keep(self, tensors: Sequence[Tensor | None]) -> None:
        """Remember the version of each tensor whose array the vjp's closure holds, to notice later changes."""
        held = {id(owner(x)) for x in closure_contents(self.vjp) if hasattr(x, "base")}
        self.kept = [(t._version, t._version.number) for t in tensors if t is not None and id(owner(t.array)) in held]


class _Version:
    """How often an array was changed in place; shared by all tensors that view one array."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Tensor:
    """An array with a gradient: ``array`` holds the numbers, ``grad`` the gradient after ``backward``.

    ``device`` is where the array lives. Arithmetic, comparisons, indexing, reductions and shaping work as in PyTorch;
    everything that takes a Tensor returns one.
    """

    __slots__ = ("array", "grad", "_node", "_requires_grad", "_version", "__weakref__")
    __array_priority__ = 1000  # so that ndarray + Tensor comes here

    array: Array
    grad: Tensor | None

    def __init__(self, array: Array, requires_grad: bool = False) -> None:
        if requires_grad and array.dtype.kind != "f":
            raise TypeError(f"requires_grad needs a floating-point tensor, got {array.dtype}")
        self.array = array
        self._requires_grad = requires_grad
        self.grad = None
        self._node: Node | None = None
        self._version = _Version()

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
        return "cpu" if isinstance(self.array, np.ndarray) else f"cuda:{self.array.device.id}"

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

    # -- gradients -------------------------------------------------------------------------------------------------
    def detach(self) -> Tensor:
        """The same array without its history."""
        other = Tensor(self.array)
        other._version = self._version
        return other

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
            seed = np.ones_like(self.array)
        else:
            seed = gradient.array if isinstance(gradient, Tensor) else np.asarray(gradient)
            if seed.shape != self.shape:
                raise ValueError(f"backward(): gradient has shape {seed.shape}, the tensor has {self.shape}")
            seed = seed.astype(self.dtype)
        with no_grad():
            _walk(self, seed, retain_graph)

    # -- in place --------------------------------------------------------------------------------------------------
    # Where a gradient flows, the change is an op like any other, and its result, a new array, becomes this tensor's:
    # what earlier ops kept stays as it was. Else the numbers are overwritten, and the version tells who kept them.
    def copy_(self, source: Tensor | Array) -> Tensor:
        """Overwrite the numbers; under ``no_grad`` where this tensor is a leaf that requires grad."""
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
        before._requires_grad, before._node, before._version = self._requires_grad, self._node, self._version
        result = function(before)
        if result.shape != self.shape:
            raise ValueError(f"in-place {name}: the result's shape {result.shape} is not the tensor's {self.shape}")
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise TypeError(f"in-place {name}: the result's dtype {result.dtype} does not fit {self.dtype}")
        if result.requires_grad:
            result = result.to(self.dtype)
            self.array, self._node, self._version = result.array, result._node, result._version
            self._requires_grad = True
        else:
            self.array[...] = result.array
            self._version.number += 1
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
        return Tensor(np.asarray(~self.array))

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
        return Tensor(np.asarray(self.array.any()))

    def all(self) -> Tensor:
        return Tensor(np.asarray(self.array.all()))

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
        """This tensor with another dtype or on another device: ``to(numpy.float64)``, ``to("cpu")``, or by keyword."""
        for target in targets:
            if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
                device = target
            else:
                dtype = target
        check_device(device)
        return self if dtype is None or np.dtype(dtype) == self.dtype else _call("cast", self, np.dtype(dtype))

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector or a number as it is."""
        if self.ndim > 2:
            raise ValueError(f"t() needs at most 2 dimensions, got shape {self.shape}; use transpose or permute")
        return self.T

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def float(self) -> Tensor:
        return self.to(np.float32)

    def double(self) -> Tensor:
        return self.to(np.float64)

    def long(self) -> Tensor:
        return self.to(np.int64)


def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A new tensor that owns a copy of ``data``: a number, nested lists, an array, a Tensor.

    Python floats become float32 and Python ints int64, as in PyTorch; arrays keep their dtype.
    """
    check_device(device)
    if isinstance(data, Tensor):
        data = data.array
    if isinstance(data, np.ndarray):
        data = plain("tensor", "data", data)
    try:
        array = np.array(data, dtype=dtype, order="C")
    except (TypeError, ValueError) as error:  # a ragged list, a dtype that NumPy does not know
        raise type(error)(f"tensor: {error}") from None
    if dtype is None and not hasattr(data, "dtype") and array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: cannot hold {array.dtype} (from {type(data).__name__}); use numbers or booleans")
    return Tensor(array, requires_grad)


def check_device(device: str | None) -> None:
    """Raise unless ``device`` names one that this build can use."""
    if device is None or device == "cpu":
        return
    if not isinstance(device, str):
        raise TypeError(f"device must be a string such as 'cpu', got {device!r}")
    if device.partition(":")[0] == "cuda":
        raise ValueError(f"device {device!r}: this version of fastnn runs on the CPU only; use device='cpu'")
    raise ValueError(f"unknown device {device!r}; use 'cpu'")


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
    arrays = []
    any_tensor = wanted = False
    for x in inputs:
        if isinstance(x, Tensor):
            any_tensor = True
            wanted = wanted or x.requires_grad
            arrays.append(x.array)
        else:
            arrays.append(x if x.__class__ is np.ndarray or not isinstance(x, np.ndarray) else plain(name, "input", x))
    results = forward(*arrays)
    y, vjp, extra = results[0], results[1], results[2:]
    if not any_tensor:
        return (y, *extra) if extra else y
    result = Tensor(y)
    for x in inputs:  # a view shares its source's version, so that a change through either is noticed
        if isinstance(x, Tensor) and owner(y) is owner(x.array):
            result._version = x._version
    if wanted and is_grad_enabled():
        tensors = tuple(x if isinstance(x, Tensor) else None for x in inputs)
        result._requires_grad = True
        result._node = node = Node(name, tensors, vjp)
        node.keep((*tensors, result))
    return (result, *(Tensor(e) for e in extra)) if extra else result


def _walk(root: Tensor, seed: Array, retain_graph: bool) -> None:
    if root._node is None:
        return _accumulate(root, seed, owned=True)
    gradients: dict[Node, Array] = {root._node: seed}
    queue = [(-root._node.order, root._node)]
    while queue:
        node = heappop(queue)[1]
        dy = gradients.pop(node)
        if node.retained is not None:
            _accumulate(node.retained, dy, owned=False)
        if node.vjp is None:
            raise RuntimeError(
                f"backward() through '{node.name}' a second time: its graph was freed by the first; "
                "pass retain_graph=True to the first call"
            )
        for version, number in node.kept:
            if version.number != number:
                raise RuntimeError(
                    f"backward() through '{node.name}': a tensor it needs was changed in place after it was used "
                    f"(version {version.number}, expected {number}); change a copy (.clone()) instead"
                )
        for x, source, wanted, dx in zip(node.inputs, node.sources, node.need, node.vjp(dy, node.need)):
            if not wanted or dx is None:
                continue
            if source is None:
                _accumulate(cast(Tensor, x), dx, owned=owner(dx) is not owner(dy))
            elif source in gradients:
                gradients[source] = gradients[source] + dx
            else:
                gradients[source] = dx
                heappush(queue, (-source.order, source))
        if not retain_graph:
            node.vjp, node.inputs, node.sources, node.kept = None, (), [], []


def _accumulate(leaf: Tensor, gradient: Array, owned: bool) -> None:
    if leaf.grad is None:
        flags = gradient.flags
        adopt = owned and flags.c_contiguous and getattr(flags, "writeable", True)
        leaf.grad = Tensor(gradient if adopt else gradient.copy())
    else:
        leaf.grad.array += gradient
        leaf.grad._version.number += 1


def owner(array: Array) -> Array:
    """The array whose memory ``array`` is a view of, or itself."""
    return array.base if isinstance(array.base, type(array)) else array


def closure_contents(function: Any) -> list[Any]:
    """What the variables hold that ``function``, and the functions among them, take from their surroundings."""
    contents: list[Any] = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            contents.append(cell.cell_contents)
        except ValueError:  # a variable that was never assigned
            continue
        if getattr(contents[-1], "__closure__", None):
            contents += closure_contents(contents[-1])
    return contents


def _call(name: str, *arguments: Any) -> Any:
    return _methods[name](*arguments)


def _plain(key: Any) -> Any:
    """An index with arrays in place of Tensors: copies, so that the gradient finds its way when they change."""
    if isinstance(key, tuple):
        return tuple(_plain(k) for k in key)
    return key.array.copy() if isinstance(key, Tensor) else key


def _compare(function: Callable[[Any, Any], Array], a: Tensor, b: Any) -> Tensor:
    b = b.array if isinstance(b, Tensor) else b
    try:
        return Tensor(np.asarray(function(a.array, b)))
    except TypeError:
        raise TypeError(f"{function.__name__}: cannot compare {a.dtype} with {type(b).__name__}") from None
    except ValueError:
        raise ValueError(
            f"{function.__name__}: shapes {a.shape} and {np.shape(b)} do not broadcast: from the right, sizes must be "
            "equal or 1"
        ) from None


def _index_of(function: Callable[..., Any], x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    if dim is not None:
        size = max(x.ndim, 1)
        if not -size <= integer(function.__name__, "dim", dim) < size:
            raise ValueError(f"{function.__name__}: dim {dim} is out of range for shape {x.shape}: {-size}..{size - 1}")
    if 0 in (x.shape if dim is None else x.shape[dim : dim + 1 or None]):
        raise ValueError(f"{function.__name__}: no elements to choose from in shape {x.shape}")
    return Tensor(np.asarray(function(x.array, axis=dim, keepdims=keepdim)))


def _on_host(array: Array) -> Array:
    return array if isinstance(array, np.ndarray) else array.get()
