"""Optimizer: parameter groups, each with its own options, and state per parameter. Updates: sgd.py, adam.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .. import _core
from ..autograd import Tensor, enable_grad
from ..kernels._backend import device_of, empty, moved, on, zeros
from ..kernels._check import FLOATS, real, shown
from ..tape import note_change

__all__ = ["Optimizer"]

_OF_SCHEDULES = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}  # what they note in a group
_NOTHING: dict[str, Any] = {}
_PYTORCHS_OWN = {"foreach", "fused", "capturable", "differentiable"}  # how it runs a step; its saved options name them


class Optimizer:
    """Base class: ``params`` are tensors, or dicts with "params" and options that differ from ``defaults`` (groups).

    ``param_groups`` are dicts that may be changed between steps (``group["lr"] = 0.1``); ``state[p]`` is what the
    optimizer remembers of parameter p. A subclass defines ``_update(group, parameters)``, and names what its state
    holds in ``_remembered``: the tensors (of the parameter's shape) that a step works on.
    """

    _remembered: tuple[str, ...] | None = None
    _fixed: tuple[str, ...] = ()  # options that make it another optimizer

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        if isinstance(params, Tensor):
            raise TypeError(
                f"{self._name}: params must be an iterable of tensors or dicts, got one Tensor; use [tensor]"
            )
        if not isinstance(params, Iterable):
            raise TypeError(
                f"{self._name}: params must be an iterable of tensors or dicts, got {type(params).__name__}; "
                "use model.parameters()"
            )
        groups = list(params)
        if not groups:
            raise ValueError(f"{self._name}: got an empty list of parameters")
        if not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError where an option (of a group) is out of range."""

    def _update(self, group: dict[str, Any], parameters: list[Any]) -> None:
        """Update the ``parameters`` of the group: those that have a gradient."""
        raise NotImplementedError(f"{self._name} does not define _update()")

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Train more parameters: a dict with "params" and any options; the others take the defaults."""
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(f"{self._name}: a parameter group must be a dict with 'params', got {param_group!r:.80}")
        params = param_group["params"]
        if isinstance(params, (set, frozenset)):
            raise TypeError(f"{self._name}: parameters need an order, which a set has not; use a list")
        tensors = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for p in tensors:
            if not isinstance(p, Tensor):
                raise TypeError(f"{self._name}: can only train tensors, got {type(p).__name__}; use model.parameters()")
            if not p.is_leaf:
                raise ValueError(f"{self._name}: can't train the result of an op (shape {p.shape}); use .detach()")
            if id(p) in known:
                raise ValueError(f"{self._name}: a parameter of shape {p.shape} appears twice")
            known.add(id(p))
        unknown = sorted(set(param_group) - set(self.defaults) - {"params"} - _OF_SCHEDULES)
        if unknown:
            raise TypeError(f"{self._name}: unknown option {', '.join(unknown)}; known: {', '.join(self.defaults)}")
        group = {**self.defaults, **param_group, "params": tensors}
        self._check(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or with ``set_to_none=False`` fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p._grad = None
                elif p.grad is not None:
                    p.grad = p.grad.detach().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient, or none: all gradients are checked before anything changes.

        ``closure`` computes loss and gradients anew.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        ready = [[p for p in group["params"] if p._grad is not None] for group in self.param_groups]
        for parameters in ready:
            self._check_ready(parameters)
        for group, parameters in zip(self.param_groups, ready):
            if parameters:
                note_change(*[p.array for p in parameters])
                self._update(group, parameters)
        return loss

    def _check_ready(self, parameters: list[Any]) -> None:
        """Raise unless each parameter, its gradient and its state fit together and can be updated."""
        w = [p.array for p in parameters]
        columns = [w, [p._grad.array for p in parameters]]
        if self.state:
            get = self.state.get
            known = [get(p, _NOTHING) for p in parameters]
            for name in self._remembered or ():
                columns.append([x if (t := entry.get(name)) is None else t.array for entry, x in zip(known, w)])
        if not (_core.alike(*columns) or _alike_there(columns)):
            for p in parameters:
                self._check_one(p)

    def _check_one(self, p: Tensor) -> None:
        """The same for one parameter, with words; arrays that are merely not contiguous pass."""
        w = p.array
        if w.dtype not in FLOATS:
            raise TypeError(f"{self._name}: {self._which(p)} must be float32 or float64, got {w.dtype}")
        if not getattr(w.flags, "writeable", True):
            raise ValueError(f"{self._name}: {self._which(p)} is read-only; give it a writable array")
        for name, other in {"gradient": p.grad, **self.state.get(p, {})}.items():
            if isinstance(other, Tensor) and other.device != p.device:
                raise ValueError(
                    f"{self._name}: {self._which(p)} is on {p.device} but its {name} is on {other.device}: move the "
                    "model before its optimizer is made, or optimizer.load_state_dict(optimizer.state_dict()) after it"
                )
            if isinstance(other, Tensor) and (other.shape != w.shape or other.dtype != w.dtype):
                raise ValueError(
                    f"{self._name}: {self._which(p)} is {w.shape} {w.dtype} but its {name} is {other.shape} "
                    f"{other.dtype}: they must agree"
                )

    def _which(self, p: Tensor) -> str:
        places = ((i, j) for i, group in enumerate(self.param_groups) for j, q in enumerate(group["params"]) if q is p)
        return "parameter {1} of group {0}".format(*next(places))

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {number: {...}}, "param_groups": [{..., "params": [numbers]}]}``; state tensors share memory."""
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers[id(p)] = len(numbers)
            groups.append({**group, "params": [numbers[id(p)] for p in group["params"]]})
        state = {numbers[id(p)]: dict(entry) for p, entry in self.state.items() if entry and id(p) in numbers}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over options and a copy of the state; nothing is changed if they do not fit the parameters, or are what
        another optimizer saved."""
        op = f"{self._name}.load_state_dict"
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise TypeError(f"{op}: expected a dict with 'state' and 'param_groups'")
        if not isinstance(state_dict["state"], Mapping) or not isinstance(state_dict["param_groups"], (list, tuple)):
            raise TypeError(f"{op}: expected 'state' to be a dict and 'param_groups' a list")
        for group in state_dict["param_groups"]:
            if not isinstance(group, Mapping) or not isinstance(group.get("params"), (list, tuple)):
                raise TypeError(f"{op}: every parameter group must be a dict with a list 'params', got {shown(group)}")
        saved, own = state_dict["param_groups"], self.param_groups
        sizes = [len(group["params"]) for group in saved]
        if sizes != [len(group["params"]) for group in own]:
            mine = [len(group["params"]) for group in own]
            raise ValueError(f"{op}: the saved groups have {sizes} parameters, this optimizer's have {mine}")
        parameters = {number: p for old, new in zip(saved, own) for number, p in zip(old["params"], new["params"])}
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for key, entry in state_dict["state"].items():
            number = int(key)  # JSON turns the numbers into strings
            if number not in parameters:
                raise ValueError(f"{op}: state of parameter {number}, but there are {len(parameters)} parameters")
            if not isinstance(entry, Mapping):
                raise TypeError(f"{op}: the state of parameter {number} must be a dict, got {type(entry).__name__}")
            strange = sorted(set(entry) - {"step", *self._remembered}) if self._remembered is not None else []
            if strange:
                raise ValueError(
                    f"{op}: the state of parameter {number} holds {', '.join(strange)}; {self._name} keeps "
                    f"{', '.join(self._remembered or ())}: it was saved by another optimizer"
                )
            p = parameters[number]
            state[p] = {name: _restored(op, number, name, value, p) for name, value in entry.items()}
        groups = []
        for old, new in zip(saved, own):
            options = {name: value for name, value in old.items() if name not in _PYTORCHS_OWN}
            unknown = sorted(set(options) - set(new) - _OF_SCHEDULES)
            fixed = [name for name in self._fixed if options.get(name, new[name]) != new[name]]
            if unknown or fixed:
                said = ", ".join(unknown) if unknown else f"{fixed[0]}={options[fixed[0]]}"
                raise ValueError(
                    f"{op}: the saved options hold {said}; {self._name} has {', '.join(self.defaults)}: they were "
                    "saved by another optimizer"
                )
            groups.append({**new, **options, "params": new["params"]})
            self._check(groups[-1])
        self.state = state
        self.param_groups[:] = groups  # schedulers and callers may hold the list

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return f"{self._name} (\n" + "\n".join(lines) + "\n)"


def _alike_there(columns: list[list[Any]]) -> bool:
    """What _core.alike says of NumPy's arrays, of a GPU's: all on one, of one float dtype, row by row of one shape."""
    gpu = device_of(columns[0][0]) if columns[0] else None
    if gpu is None or columns[0][0].dtype not in FLOATS:
        return False
    dtype, kind = columns[0][0].dtype, None if gpu.several else gpu.array_type
    shapes = [getattr(w, "shape", None) for w in columns[0]]
    for column in columns:
        for x, shape in zip(column, shapes):
            if (type(x) is not kind and not gpu.holds(x)) or x.dtype != dtype or x.shape != shape:
                return False
    return True


def _restored(op: str, number: int, name: str, value: Any, p: Tensor) -> Any:
    """A state entry for ``p``: numbers stay; arrays become tensors of p's dtype, "step" an int."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    array = value.array if isinstance(value, Tensor) else value
    if device_of(array) is None:
        array = np.asarray(array)
    if name == "step":
        return int(array)
    if array.shape != p.shape:
        raise ValueError(f"{op}: '{name}' of parameter {number} has shape {array.shape}, the parameter {p.shape}")
    kept = empty(p.shape, p.array)
    with on(kept):
        kept[...] = moved(array, kept)
    return Tensor(kept)


def require(op: str, name: str, value: Any, low: float, below: float = float("inf")) -> None:
    """Raise unless ``low <= value < below``."""
    if not low <= real(op, name, value) < below:
        limit = f"at least {low:g}" if below == float("inf") else f"in [{low:g}, {below:g})"
        raise ValueError(f"{op}: {name} must be {limit}, got {value}")


def refuse(op: str, **asked: Any) -> None:
    """Raise where one of PyTorch's arguments on how a step is run asks for something: there is one way here."""
    for name, value in asked.items():
        if value:
            raise ValueError(
                f"{op}: {name}={value!r} is not supported: a step is one call of a fused kernel for all parameters, "
                "without a gradient of its own; leave it out"
            )


def zeros_like(p: Tensor) -> Tensor:
    return Tensor(zeros(p.shape, p.array))
