"""Losses of an element and its target each, and multi_margin_loss, which is NumPy arithmetic; one_hot.

Formulas and slopes: csrc/formulas.h. Cross-entropy and nll_loss, which have kernels of their own: cross_entropy.py.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .. import kernels
from ..autograd import Tensor, apply
from ..kernels._backend import Array, namespace, on, zeros
from ..kernels._check import (
    choice,
    contiguous,
    expect_arrays,
    expect_floats,
    expect_one_device,
    floats,
    integer,
    plain,
    real,
)
from .arithmetic import into, summed, unbroadcast
from .cross_entropy import constant, only_reduction

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "one_hot",
    "smooth_l1_loss",
]


def _check_reduction(op: str, reduction: str, allowed: tuple[str, ...] = ("none", "mean", "sum")) -> None:
    choice(op, "reduction", reduction, allowed)


def _same_shape(op: str, input: Any, target: Any) -> None:
    expect_arrays(op, input=input, target=target)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(f"{op}: 'target' must have the shape of 'input', {input.shape}, got {target.shape}")


def _broadcast(op: str, input: Any, target: Any, warn: bool = True) -> None:
    """As PyTorch: shapes that differ are broadcast, with a warning, for they are a mistake more often than not."""
    expect_arrays(op, input=input, target=target)
    if input.shape == target.shape:
        return
    try:
        np.broadcast_shapes(input.shape, target.shape)
    except ValueError:
        raise ValueError(f"{op}: 'input' {input.shape} and 'target' {target.shape} do not broadcast") from None
    if not warn:
        return
    warnings.warn(
        f"{op}: 'target' {target.shape} has not the shape of 'input' {input.shape} and is broadcast: is that meant?",
        UserWarning,
        stacklevel=3,
    )


def _factor(op: str, name: str, factor: Any, input: Any, *, exact: bool = False) -> Array | None:
    """A weight without gradient, of the input's dtype, that broadcasts to its shape (or has it, if ``exact``)."""
    w = constant(op, name, factor)
    if w is None:
        return None
    (w,) = floats(op, **{name: w})
    if w.dtype != input.dtype:
        raise TypeError(f"{op}: 'input' is {input.dtype} but '{name}' is {w.dtype}; convert one with .astype(...)")
    try:
        fits = w.shape == input.shape or (not exact and np.broadcast_shapes(w.shape, input.shape) == input.shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{op}: '{name}' {w.shape} must {'have' if exact else 'broadcast to'} the shape of 'input', {input.shape}"
        )
    return w


def _pointwise(
    op: str,
    kind: str,
    input: Any,
    target: Any,
    reduction: str,
    parameter: float = 1.0,
    *,
    weight: Array | None = None,
    positive: Array | None = None,
    divisor: float | None = None,
) -> Any:
    """The loss ``kind`` of csrc/formulas.h per element, times ``weight``; "mean" divides by ``divisor``."""
    reduced = reduction != "none"

    def forward(x: Array, t: Array) -> Any:
        x, t = floats(op, input=x, target=t)
        shapes = x.shape, t.shape
        if x.shape != t.shape:
            x, t = (contiguous(a) for a in np.broadcast_arrays(x, t))
        w, p = (None if f is None else contiguous(np.broadcast_to(f, x.shape)) for f in (weight, positive))
        number = 1.0 if reduction in ("none", "sum") else float(x.size) if divisor is None else divisor
        about: Any = {"reduced": reduced, "parameter": parameter, "divisor": number}
        y = kernels.pointwise_loss(kind, x, t, w, p, **about)

        def vjp(dy: Array, need: Any) -> Any:
            grads = kernels.pointwise_loss_backward(kind, dy, x, t, w, p, need_x=need[0], need_target=need[1], **about)
            return tuple(None if g is None else unbroadcast(g, shape) for g, shape in zip(grads, shapes))

        return y, vjp

    return apply(op, forward, input, target)


def mse_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """Squared error ``(x - t)**2``. ``weight`` has the input's shape; "mean" then divides by its sum."""
    only_reduction("mse_loss", size_average, reduce)
    _check_reduction("mse_loss", reduction)
    _broadcast("mse_loss", input, target)
    w = _factor("mse_loss", "weight", weight, input, exact=True)
    divisor = None if w is None else float(summed(w, None))
    return _pointwise("mse_loss", "mse", input, target, reduction, weight=w, divisor=divisor)


def l1_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """Absolute error ``|x - t|``, with the gradient 0 at 0. ``weight`` as in mse_loss."""
    only_reduction("l1_loss", size_average, reduce)
    _check_reduction("l1_loss", reduction)
    _broadcast("l1_loss", input, target)
    w = _factor("l1_loss", "weight", weight, input, exact=True)
    divisor = None if w is None else float(summed(w, None))
    return _pointwise("l1_loss", "l1", input, target, reduction, weight=w, divisor=divisor)


def smooth_l1_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Any:
    """``d**2 / (2 * beta)`` where ``d = |x - t| < beta``, else ``d - beta / 2``; l1_loss if ``beta`` is 0."""
    only_reduction("smooth_l1_loss", size_average, reduce)
    _check_reduction("smooth_l1_loss", reduction)
    _broadcast("smooth_l1_loss", input, target)
    beta = real("smooth_l1_loss", "beta", beta)
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    return _pointwise("smooth_l1_loss", "smooth_l1", input, target, reduction, beta)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    """``d**2 / 2`` where ``d = |x - t| <= delta``, else ``delta * (d - delta / 2)`` (Huber 1964).

    ``weight`` has the input's shape; "mean" divides by the number of elements all the same, as in PyTorch.
    """
    _check_reduction("huber_loss", reduction)
    _broadcast("huber_loss", input, target)
    delta = real("huber_loss", "delta", delta)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    w = _factor("huber_loss", "weight", weight, input, exact=True)
    return _pointwise("huber_loss", "huber", input, target, reduction, delta, weight=w)


def kl_div(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    """Kullback-Leibler divergence ``t * (log(t) - x)`` of log-probabilities ``x`` from probabilities ``t``.

    With ``log_target`` the target too is given as its logarithm. ``"batchmean"`` divides the sum by the batch's size
    (the divergence as defined); ``"mean"``, PyTorch's default, by the number of elements.
    """
    only_reduction("kl_div", size_average, reduce)
    _check_reduction("kl_div", reduction, ("none", "batchmean", "mean", "sum"))
    _broadcast("kl_div", input, target, warn=False)
    batch = input.shape[0] if reduction == "batchmean" and input.ndim else None
    if reduction == "batchmean" and batch is None:
        reduction = "sum"
    kind = "kl_div_log" if log_target else "kl_div"
    return _pointwise("kl_div", kind, input, target, reduction, divisor=None if batch is None else float(batch))


def binary_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """``-(t * log(x) + (1 - t) * log(1 - x))`` of probabilities ``x``, each logarithm at least -100, as in PyTorch.

    ``target`` has the input's shape; ``weight`` broadcasts to it. Raises ValueError where ``x`` is outside [0, 1]; on a
    GPU, which nobody waits for, the loss is NaN there.
    """
    op = "binary_cross_entropy"
    only_reduction(op, size_average, reduce)
    _check_reduction(op, reduction)
    _same_shape(op, input, target)

    expect_floats(op, input=input, target=target)
    x: Any = input.array if isinstance(input, Tensor) else input
    if isinstance(x, np.ndarray) and x.size and not (x.min() >= 0 and x.max() <= 1):  # NaN is let through
        bad = x[(x < 0) | (x > 1)]
        if bad.size:
            raise ValueError(
                f"{op}: 'input' must be in [0, 1], got {bad[0]}; use binary_cross_entropy_with_logits for logits"
            )
    return _pointwise(op, "bce", input, target, reduction, weight=_factor(op, "weight", weight, input))


def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    """binary_cross_entropy of ``sigmoid(x)``, without overflow; the part of ``t`` is multiplied by ``pos_weight``.

    ``target`` has the input's shape; ``weight`` and ``pos_weight`` (one number per class, say) broadcast to it.
    """
    op = "binary_cross_entropy_with_logits"
    only_reduction(op, size_average, reduce)
    _check_reduction(op, reduction)
    _same_shape(op, input, target)
    positive = _factor(op, "pos_weight", pos_weight, input)
    w = _factor(op, "weight", weight, input)
    return _pointwise(op, "bce_logits", input, target, reduction, weight=w, positive=positive)


def hinge_embedding_loss(
    input: Any,
    target: Any,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """``x`` where the target is 1, ``max(0, margin - x)`` where it is -1; for distances of like and unlike pairs.

    ``target`` holds 1 and -1, integers or floats, and broadcasts with the input. It has no gradient.
    """
    op = "hinge_embedding_loss"
    only_reduction(op, size_average, reduce)
    _check_reduction(op, reduction)
    margin = real(op, "margin", margin)
    t: Any = constant(op, "target", target)
    _broadcast(op, input, t, warn=False)
    if t.dtype.kind not in "fiu":
        raise TypeError(f"{op}: 'target' must hold the numbers 1 and -1, got {t.dtype}")

    with on(t):
        t = t.astype(input.dtype)
    return _pointwise(op, "hinge_embedding", input, t, reduction, margin)


def _labels(op: str, target: Any, shape: tuple[int, ...] | None, classes: int | None) -> Array:
    """Labels as int64, of the right shape, each in 0..classes-1. Those of a GPU are read back, to be looked at."""
    given = plain(op, "target", target)
    t = given if isinstance(given, np.ndarray) else given.get()
    if t.dtype.kind not in "iu" or not np.can_cast(t.dtype, np.int64):
        raise TypeError(f"{op}: labels must be int64, got {t.dtype}; convert them with .astype(numpy.int64)")
    if shape is not None and t.shape != shape:
        raise ValueError(f"{op}: 'target' must have shape {shape}, one label per row of 'input', got {t.shape}")
    bad = np.flatnonzero((t < 0) | (t >= classes) if classes is not None else t < 0)
    if bad.size:
        position = tuple(int(i) for i in np.unravel_index(bad[0], t.shape))
        limit = "not be negative" if classes is None else f"be in 0..{classes - 1}: there are {classes} classes"
        raise ValueError(f"{op}: label {t.reshape(-1)[bad[0]]} at position {position} must {limit}")
    with on(given):
        return given.astype(np.int64, copy=False)


def multi_margin_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """``sum over j != t of weight[t] * max(0, margin - x[t] + x[j])**p / C`` for scores (C,) or (N, C), ``p`` 1 or 2.

    ``target`` holds a label in 0..C-1 for each row, ``weight`` a number for each class.
    """
    op = "multi_margin_loss"
    only_reduction(op, size_average, reduce)
    _check_reduction(op, reduction)
    expect_arrays(op, input=input, target=target)
    margin = real(op, "margin", margin)
    if real(op, "p", p) not in (1, 2):
        raise ValueError(f"{op}: p must be 1 or 2, got {p}")
    if input.ndim not in (1, 2) or input.shape[-1] == 0:
        raise ValueError(f"{op}: 'input' must be (C,) or (N, C) with C > 0, got shape {input.shape}")
    w = constant(op, "weight", weight)
    if w is not None:
        expect_arrays(op, weight=w)
    if w is not None and (w.shape != input.shape[-1:] or w.dtype != input.dtype):
        raise ValueError(
            f"{op}: 'weight' must be {input.shape[-1:]} {input.dtype}, a number per class, got {w.shape} {w.dtype}"
        )

    expect_one_device(op, input=input, target=target, weight=w)

    def forward(x: Array, t: Array) -> Any:
        (x,) = floats(op, input=x)
        classes, xp = x.shape[-1], namespace(x)
        at = _labels(op, t, x.shape[:-1], classes)[..., None]
        z = xp.maximum(xp.add(xp.subtract(x, np.take_along_axis(x, at, -1)), x.dtype.type(margin)), 0)
        xp.put_along_axis(z, at, 0, -1)
        scale = x.dtype.type(1 / classes) if w is None else xp.divide(w[at], x.dtype.type(classes))
        y = summed(xp.multiply(z if p == 1 else xp.multiply(z, z), scale), (-1,))
        number = x.dtype.type(y.size if reduction == "mean" else 1)
        with np.errstate(invalid="ignore"):
            y = y if reduction == "none" else into(np.divide, summed(y, None), number)

        def vjp(dy: Array, need: Any) -> Any:
            with np.errstate(all="ignore"):
                g = xp.multiply(xp.divide(dy[..., None], number), scale)
            dx = xp.multiply(xp.greater(z, 0) if p == 1 else xp.multiply(z, 2), g)
            xp.put_along_axis(dx, at, xp.negative(summed(dx, (-1,), keepdims=True)), -1)
            return dx.astype(x.dtype, copy=False), None

        return y, vjp

    return apply(op, forward, input, target)


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """Labels of any shape as rows of 0 with a 1 at the label: int64, shape ``(*labels.shape, num_classes)``.

    ``num_classes`` -1 takes the largest label plus 1.

    >>> one_hot(fastnn.tensor([1, 0])).tolist()
    [[0, 1], [1, 0]]
    """
    expect_arrays("one_hot", tensor=tensor)
    classes = integer("one_hot", "num_classes", num_classes)
    if classes >= 2**31:
        raise ValueError(f"one_hot: num_classes must be below 2^31, got {classes}")
    if classes < -1 or (classes < 1 and classes != -1 and np.size(tensor)):
        raise ValueError(
            f"one_hot: num_classes must be positive, or -1 to take the largest label plus 1, got {classes}"
        )

    def forward(t: Array) -> Any:
        labels = _labels("one_hot", t, None, None if classes == -1 else classes)
        if classes == -1 and labels.size == 0:
            raise ValueError("one_hot: no labels to count the classes from; pass num_classes")
        y = zeros((*labels.shape, int(labels.max()) + 1 if classes == -1 else classes), labels)
        namespace(y).put_along_axis(y, labels[..., None], 1, -1)
        return y, lambda dy, need: (None,)

    return apply("one_hot", forward, tensor)
