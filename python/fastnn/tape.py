"""The tape: what was recorded, and the walk back over it. It knows no op, and of a tensor only its array and its marks.

``autograd.apply`` leaves a ``Node`` on the result of an op. ``walk`` visits the nodes from the newest to the oldest: a
node's consumers are always newer than the node, so that when its turn comes its gradient is complete. What is changed
in place is noted by the same clock, so that a node can tell whether what it kept is as it was.
Next: autograd.py, where Tensor and apply are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from .kernels._backend import Array, backend, empty, namespace, on

if TYPE_CHECKING:
    from .autograd import Tensor

__all__ = ["enable_grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]

Vjp = Callable[[Array, Sequence[bool]], Sequence["Array | None"]]

_clock = count(1)


class _State(threading.local):
    enabled = True
    stack: list[bool]


_state = _State()


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require gradients are recorded in this thread."""
    return _state.enabled


class no_grad:  # noqa: N801 (PyTorch's name)
    """Context manager and decorator under which nothing is recorded: for evaluation and for updating parameters."""

    _mode = False

    def __enter__(self) -> None:
        _state.__dict__.setdefault("stack", []).append(_state.enabled)
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


_changes: dict[int, int] = {}  # id of an array whose memory was changed in place -> when, by the clock of the nodes
_last_change = 0
_changing = threading.Lock()  # of two threads, the later change must be the one that stands


def note_change(*arrays: Array) -> None:
    """The numbers of the arrays were changed in place: a node recorded before that kept them must not use them.

    Whoever keeps an array keeps its id from being another's, so an entry is true of all who could ask for it; and as
    ids are addresses, the table stays smaller than what held the arrays. Views of one array count as one.
    """
    global _last_change
    with _changing:
        _last_change = now = next(_clock)
        for array in arrays:
            _changes[id(owner(array))] = now


def replace(tensor: Tensor, array: Array) -> None:
    """Give ``tensor`` another array. For a graph that kept the old one this counts as a change of it."""
    note_change(tensor.array)
    tensor.array = array


class Node:
    """One recorded op: its vjp, and where each gradient goes, as it was then: an older node, a leaf, or None where none
    is wanted."""

    __slots__ = ("name", "vjp", "targets", "need", "order", "retained")

    def __init__(
        self, name: str, vjp: Vjp | None, targets: Sequence[Node | Tensor | None], need: Sequence[bool]
    ) -> None:
        self.name, self.vjp, self.targets, self.need = name, vjp, targets, need
        self.order = next(_clock)
        self.retained: Tensor | None = None

    def check_kept(self) -> None:
        """Raise if an array that the vjp's closure holds was changed since."""
        for x in closure_contents(self.vjp):
            if hasattr(x, "strides") and _changes.get(id(owner(x)), 0) > self.order:
                raise RuntimeError(
                    f"backward() through '{self.name}': a tensor it needs was changed in place after it was used; "
                    "change a copy (.clone()) instead"
                )


def walk(root: Node, seed: Array, retain_graph: bool) -> dict[Tensor, Array]:
    """Run every vjp that ``root`` leads to, with ``seed`` as its gradient: the gradients of the leaves, and of what
    retains its own, each an array that nobody else has."""
    gradients: dict[Node, Array] = {root: seed}
    leaves: dict[Tensor, Array] = {}
    queue = [(-root.order, root)]
    while queue:
        node = heappop(queue)[1]
        dy, vjp = gradients.pop(node), node.vjp
        if node.retained is not None:
            _collect(leaves, node.retained, dy, dy)
        if vjp is None:
            raise RuntimeError(
                f"backward() through '{node.name}' a second time: its graph was freed by the first; "
                "pass retain_graph=True to the first call"
            )
        if _last_change > node.order:
            node.check_kept()
        if dy.__class__ is np.ndarray:
            dxs = vjp(dy, node.need)
        else:
            with on(dy):
                dxs = vjp(dy, node.need)
        for target, dx in zip(node.targets, dxs):
            if target is None or dx is None:
                continue
            if not isinstance(target, Node):
                _collect(leaves, target, dx, dy)
            elif target in gradients:
                gradients[target] = _sum(gradients[target], dx)
            else:
                gradients[target] = dx
                heappush(queue, (-target.order, target))
        if not retain_graph:
            node.vjp, node.targets = None, ()
    return leaves


def _collect(leaves: dict[Tensor, Array], leaf: Tensor, dx: Array, dy: Array) -> None:
    """Add ``dx``, which a vjp made of ``dy``, to a leaf's gradient."""
    if leaf in leaves:
        add_to(leaves[leaf], dx)
        return
    flags = dx.flags
    shared = dx is dy or (dx.base is not None and owner(dx) is owner(dy))
    leaves[leaf] = copied(dx) if shared or not (flags.c_contiguous and getattr(flags, "writeable", True)) else dx


def copied(x: Array) -> Array:
    """``x`` in an array of its own, C-contiguous."""
    copy = empty(x.shape, x)
    with on(x):
        copy[...] = x
    return copy


def add_to(total: Array, x: Array) -> None:
    """``total += x``, in place, on all threads where the arrays lie contiguously."""
    if total.__class__ is np.ndarray:
        try:
            backend("add", total).add(total, x, total)
            return
        except (TypeError, ValueError):  # strided, or of two dtypes
            pass
    with on(total):
        total += x


def _sum(a: Array, b: Array) -> Array:
    """``a + b`` in memory that is reused: NumPy's own would be fresh for every step, and its pages with it."""
    if type(a) is not np.ndarray:
        return namespace(a).add(a, b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return a + b
    return np.add(a, b, out=empty(a.shape, a))


def owner(array: Array) -> Array:
    """The array whose memory ``array`` is a view of, or itself."""
    base: Any = array.base
    while hasattr(base, "strides"):  # one step for a plain array; views of a subclass's keep the whole way
        array, base = base, base.base
    return array


def closure_contents(function: Any) -> list[Any]:
    """What the variables hold that ``function``, and the functions among them, take from their surroundings; of a tuple
    or a list, its items."""
    contents: list[Any] = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            _unpack(cell.cell_contents, contents)
        except ValueError:  # a variable that was never assigned
            continue
    return contents


def _unpack(x: Any, contents: list[Any]) -> None:
    if isinstance(x, (tuple, list)):
        for item in x:
            _unpack(item, contents)
    else:
        contents.append(x)
        contents += closure_contents(x)
