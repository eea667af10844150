"""The models by name, for the command line: to add one, write its function and add a row here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import nn
from .convnet import alexnet_small, lenet5
from .mlp import mlp, perceptron

__all__ = ["create", "names"]

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "alexnet_small": alexnet_small,
    "lenet5": lenet5,
    "mlp": mlp,
    "perceptron": perceptron,
}
_ALIASES = {"lenet": "lenet5"}


def names() -> list[str]:
    """The names that ``create`` knows."""
    return sorted(_MODELS)


def create(name: str, **kwargs: Any) -> nn.Module:
    """The model called ``name`` ("alexnet-small" and "alexnet_small" alike), built with its function's arguments."""
    key = name.lower().replace("-", "_")
    key = _ALIASES.get(key, key)
    if key in _MODELS:
        return _MODELS[key](**kwargs)
    from difflib import get_close_matches

    close = get_close_matches(key, _MODELS, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"unknown model {name!r}; {hint}known: {', '.join(names())}")
