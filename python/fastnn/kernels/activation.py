"""Activations and their gradients on plain arrays: ``y = f(x)``, ``dx = f'(x) dy``; any shape, float32 or float64."""

from __future__ import annotations

from ._backend import Array, backend
from ._check import deliver, floats, output

__all__ = ["relu", "relu_backward"]


def _elementwise(op: str, out: Array | None, *numbers: float, **arrays: Array) -> Array:
    """Run an elementwise kernel over arrays of one shape; ``out`` may be one of them."""
    ready = floats(op, **arrays)
    first, *others = ready
    first_name, *names = arrays
    for name, x in zip(names, others):
        if x.shape != first.shape:
            raise ValueError(f"{op}: '{first_name}' is {first.shape} but '{name}' is {x.shape}: they must agree")
    y = output(op, out, first.shape, first, *(x for x in ready if x is not out))
    getattr(backend(op, first), op)(*ready, y, *numbers)
    return deliver(y, out)


def relu(x: Array, *, out: Array | None = None) -> Array:
    """``max(0, x)``; NaN stays NaN."""
    return _elementwise("relu", out, x=x)


def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """``dy`` where the output ``y`` of relu is positive, else 0."""
    return _elementwise("relu_backward", out, dy=dy, y=y)
