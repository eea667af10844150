"""Losses of one element and its target each, forward and gradient, on plain arrays of one shape.

Formulas: csrc/formulas.h. Losses whose rows belong together: cross_entropy.py. Ops with gradients: functional/loss.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._backend import Array, attempt, backend, empty
from ._check import choice, deliver, floats, output, real

__all__ = ["pointwise_loss", "pointwise_loss_backward"]

KINDS = ("mse", "l1", "smooth_l1", "huber", "kl_div", "kl_div_log", "bce", "bce_logits", "hinge_embedding")
"""By their numbers: the order of FASTNN_LOSSES in csrc/formulas.h."""


def _ready(op: str, kind: str, optional: Sequence[str], **arrays: Array | None) -> list[Array | None]:
    """The arrays, fit for the kernel and flat, for it takes any shape; ValueError where shapes differ."""
    choice(op, "kind", kind, KINDS)
    ready = floats(op, optional=optional, **arrays)
    shape = ready[-4].shape
    for name, array in zip(arrays, ready):
        if array is not None and name != "dy" and array.shape != shape:
            raise ValueError(f"{op}: 'x' is {shape} but '{name}' is {array.shape}: they must agree")
    return [None if array is None else array.reshape(-1) for array in ready]


def _numbers(op: str, kind: str, reduced: bool, parameter: float, divisor: float) -> tuple[float, ...]:
    return KINDS.index(kind), int(bool(reduced)), real(op, "parameter", parameter), real(op, "divisor", divisor)


def pointwise_loss(
    kind: str,
    x: Array,
    target: Array,
    weight: Array | None = None,
    positive: Array | None = None,
    *,
    reduced: bool = True,
    parameter: float = 1.0,
    divisor: float = 1.0,
    out: Array | None = None,
) -> Array:
    """``weight * loss(x, target)`` for each element, or their sum over ``divisor`` as a 0-d array if ``reduced``.

    ``parameter`` is smooth_l1's beta, huber's delta, hinge_embedding's margin; ``positive`` bce_logits' factors of the
    target's part. ``x`` of bce must be in [0, 1].
    """
    op = "pointwise_loss"
    shape = () if reduced else getattr(x, "shape", ())
    x, target, weight, positive = _ready(  # type: ignore[assignment]
        op, kind, ("weight", "positive"), x=x, target=target, weight=weight, positive=positive
    )
    seen = () if reduced else x.shape
    numbers = _numbers(op, kind, reduced, parameter, divisor)
    if out is None:
        y = attempt.pointwise_loss(x, target, weight, positive, seen, *numbers)
        if y is not None:
            return y.reshape(shape)
    y = output(op, out, shape, x, x, target, weight, positive)
    backend(op, x).pointwise_loss(x, target, weight, positive, y.reshape(seen), *numbers)
    return deliver(y, out)


def pointwise_loss_backward(
    kind: str,
    dy: Array,
    x: Array,
    target: Array,
    weight: Array | None = None,
    positive: Array | None = None,
    *,
    reduced: bool = True,
    parameter: float = 1.0,
    divisor: float = 1.0,
    need_x: bool = True,
    need_target: bool = False,
    out: Array | None = None,
) -> tuple[Array | None, Array | None]:
    """``dx`` and ``dtarget``, those that are needed, from ``dy``: 0-d if ``reduced``. ``out`` is for ``dx``."""
    op = "pointwise_loss_backward"
    given, shape = getattr(dy, "shape", ()), getattr(x, "shape", ())
    dy, x, target, weight, positive = _ready(  # type: ignore[assignment]
        op, kind, ("weight", "positive"), dy=dy, x=x, target=target, weight=weight, positive=positive
    )
    if given != (() if reduced else shape):
        raise ValueError(f"{op}: 'dy' is {given}, but the loss of {shape} is {() if reduced else shape}")
    dx = output(op, out, shape, x, dy, x, target, weight, positive) if bool(need_x) else None
    dtarget = empty(shape, x) if bool(need_target) else None
    flat = (None if array is None else array.reshape(-1) for array in (dx, dtarget))
    numbers = _numbers(op, kind, reduced, parameter, divisor)
    backend(op, x).pointwise_loss_backward(dy, x, target, weight, positive, *flat, *numbers)
    return None if dx is None else deliver(dx, out), dtarget
