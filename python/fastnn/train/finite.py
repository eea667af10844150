"""Where a NaN or infinity came from: the failing batch is run once more, with a look at every layer's output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..kernels._backend import device_of

__all__ = ["NonFiniteError", "broken_parameter", "explain"]


class NonFiniteError(ArithmeticError):
    """Training met a NaN or infinity. ``step`` counts from 1; ``where`` is the module path, parameter or input."""

    def __init__(self, message: str, step: int, where: str) -> None:
        super().__init__(message)
        self.step, self.where = step, where


def broken_parameter(model: Any) -> tuple[str, str] | None:
    """(name, description) of the first parameter or buffer that is not finite, in the model's order."""
    return _first(model.state_dict().items(), "parameter")


def explain(model: Any, loss: Callable[..., Any], x: Any, y: Any) -> tuple[str, str]:
    """(where, what) is the first thing that is not finite when this batch is run again.

    In the order of cause: the input, the parameters and buffers, each layer's output as it is computed, the targets
    and loss, then the gradients from the loss backwards. The model must be in the mode, and the random numbers in the
    state, of the first run.
    """
    found = _first([("input", x)], "the batch's") or broken_parameter(model)
    if found is not None:
        return found
    outputs: list[tuple[str, str]] = []

    def look(path: str, kind: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            if not outputs:
                found = _first([(path, output)], "the output of layer")
                if found is not None:
                    outputs.append((path, f"{found[1]} ({kind})"))

        return hook

    handles = [
        module.register_forward_hook(look(path or type(model).__name__, type(module).__name__))
        for path, module in model.named_modules()
    ]
    try:
        value = loss(model(x), y)
    finally:
        for handle in handles:
            handle.remove()
    if outputs:
        return outputs[0]
    found = _first([("targets", y)], "the batch's") or _first([("loss", value)], "the value of the")
    if found is not None:
        return found
    for parameter in model.parameters():
        parameter.grad = None
    value.backward()
    gradients = [(name, parameter.grad) for name, parameter in model.named_parameters()]
    return _first(gradients[::-1], "the gradient of") or (
        "loss",
        "the value of the loss; a second run of it was finite",
    )


def _first(named: Iterable[tuple[str, Any]], what: str) -> tuple[str, str] | None:
    for name, value in named:
        x = getattr(value, "array", value)
        if device_of(x) is not None:
            x = x.get()
        if x is None or getattr(x, "dtype", np.dtype("O")).kind != "f":
            continue
        bad = int(x.size) - int(np.isfinite(x).sum())
        if bad:
            kind = "NaN" if bool(np.isnan(x).any()) else "infinite"
            return name, f"{what} '{name}' has {bad} {kind} of {x.size} values"
    return None
