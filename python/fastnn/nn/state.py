"""state_dict of a Module: what is saved under which key, and how it is loaded: all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..autograd import Tensor
from ..kernels._backend import device_of, moved, on
from ..kernels._check import plain
from ..tape import note_change, replace

if TYPE_CHECKING:
    from .module import Module

__all__ = ["IncompatibleKeys", "StateDictError"]


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns: keys that were not given, and keys given that the module does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class StateDictError(ValueError, RuntimeError):
    """A state_dict that does not fit: a ValueError as all bad input, a RuntimeError for code written for PyTorch."""


def _entries(module: Module, prefix: str) -> Iterator[tuple[str, Module, str]]:
    """(key, module, attribute) of everything that is saved; what is shared appears under each of its names."""
    for kind in ("parameter", "buffer"):
        for name, _ in module._own(kind):
            if name not in module._transient:
                yield prefix + name, module, name
    for name, child in module._own("module"):
        yield from _entries(child, f"{prefix}{name}.")


def save_state(module: Module, destination: dict[str, Any], prefix: str, keep_vars: bool) -> dict[str, Tensor]:
    for key, owner, name in _entries(module, prefix):
        value = owner.__dict__[name]
        destination[key] = value if keep_vars else value.detach()
    return destination


def load_state(module: Module, state: Any, strict: bool, assign: bool) -> IncompatibleKeys:
    title = type(module).__name__
    if not isinstance(state, Mapping):
        raise TypeError(f"load_state_dict: expected a dict of name -> tensor, got {type(state).__name__}")
    own = {key: owner.__dict__[name] for key, owner, name in _entries(module, "")}
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    problems = []
    if strict and missing:
        problems.append("missing " + ", ".join(map(repr, missing)))
    if strict and unexpected:
        problems.append("unexpected " + ", ".join(map(repr, unexpected)))
    values = {}
    for key, tensor in own.items():
        if key not in state:
            continue
        given = state[key]
        try:
            value = plain("load_state_dict", key, given.array if isinstance(given, Tensor) else _as_array(given))
        except (TypeError, ValueError) as error:
            problems.append(f"{key!r} is no array: {error}")
            continue
        if not assign and not getattr(tensor.array.flags, "writeable", True):
            problems.append(f"{key!r} is read-only in this model; pass assign=True")
        elif value.dtype.kind not in "fiub":
            problems.append(f"{key!r} holds {value.dtype}, not numbers")
        elif value.shape != tensor.shape:
            problems.append(f"{key!r} has shape {value.shape}, this model's is {tensor.shape}")
        elif assign and value.dtype.kind != tensor.dtype.kind:
            problems.append(f"{key!r} is {value.dtype}, which cannot take the place of {tensor.dtype}")
        else:
            values[key] = value
    if problems:
        raise StateDictError(f"load_state_dict: the state does not fit {title}: " + "; ".join(problems))
    for key, value in values.items():
        tensor = own[key]
        if assign:
            replace(
                tensor, value if value.flags.c_contiguous and getattr(value.flags, "writeable", True) else value.copy()
            )
        else:
            with on(tensor.array):
                tensor.array[...] = moved(value, tensor.array)
            note_change(tensor.array)
    return IncompatibleKeys(missing, unexpected)


def _as_array(given: Any) -> Any:
    """An array, or what can become one without a copy (a tensor of another library)."""
    if hasattr(given, "detach"):
        given = given.detach()
    return given if isinstance(given, np.ndarray) or device_of(given) is not None else np.asarray(given)
