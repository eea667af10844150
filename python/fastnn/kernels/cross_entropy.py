"""Cross-entropy of logits and negative log-likelihood, forward and gradient, on plain arrays.

Scores are (C,), (N, C) or (N, C, d1, ...); labels have the same shape without C. The forward functions return, beside
the loss, what their gradient needs. Labels are checked by the compiled kernels before anything is read by them: the
CPU's raise, CUDA's make the row's loss and gradient NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._backend import Array, attempt, backend, empty
from ._check import choice, contiguous, deliver, floats, integer, launch, output, plain, real
from ._check import sizes as sizes_of

__all__ = ["cross_entropy", "cross_entropy_backward", "nll_loss", "nll_loss_backward"]

REDUCTIONS = ("none", "mean", "sum")
LABELS = np.dtype(np.int64)


def _sizes(op: str, x: Array) -> tuple[int, int, int]:
    """(N, C, S) of scores (C,), (N, C) or (N, C, d1, ...)."""
    shape = x.shape
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) == 1:
        return 1, shape[0], 1
    if not shape:
        raise ValueError(f"{op}: 'input' must be (C,), (N, C) or (N, C, d1, ...), got a 0-d array")
    size = 1
    for n in shape[2:]:
        size *= n
    return shape[0], shape[1], size


def _rows(x: Array) -> tuple[int, ...]:
    """The shape of the labels, and of the losses."""
    shape = x.shape
    return shape[:1] + shape[2:] if len(shape) > 1 else ()


def _plain(op: str, target: Array) -> Array:
    """The target as an array: one label may be an int."""
    return np.asarray(target) if isinstance(target, int) else plain(op, "target", target)


def _labels(op: str, x: Array, target: Array) -> Array:
    """``target`` as contiguous int64 labels of the right shape."""
    shape = _rows(x)
    target = _plain(op, target)
    if target.shape == shape and target.dtype == LABELS:
        return contiguous(target)
    if target.dtype.kind not in "iu" or not np.can_cast(target.dtype, np.int64):
        kind = "float labels may hold NaN" if target.dtype.kind == "f" else "only integers are labels"
        raise TypeError(
            f"{op}: 'target' of shape {target.shape} for 'input' {x.shape} must hold int64 labels, got {target.dtype} "
            f"({kind}); convert it with target.astype(numpy.int64)"
        )
    if target.shape != shape:
        raise ValueError(
            f"{op}: 'input' {x.shape} needs a 'target' of shape {shape}, a label per row of scores, got {target.shape}"
        )
    return contiguous(target.astype(np.int64))


def _check(op: str, x: Array, weight: Array | None, reduction: str) -> None:
    classes = x.shape[0 if x.ndim == 1 else 1] if x.ndim else 0
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"{op}: 'weight' must be ({classes},), one number per class, got {weight.shape}")
    choice(op, "reduction", reduction, REDUCTIONS)


def cross_entropy(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    out: Array | None = None,
) -> tuple[Array, Array, Array]:
    """(loss, stats, divisor): softmax and its cross-entropy in one pass.

    ``target`` holds labels, or probabilities where it is floating-point and of ``x``'s shape. ``stats`` keeps each
    row's largest score and sum of exponentials, ``divisor`` (0-d float64, so that a device need not be waited for) what
    the sum was divided by; the gradient takes both.
    """
    return cross_entropy_and_call(x, target, weight, ignore_index, reduction, label_smoothing, out)[:3]


Call = tuple[str, tuple[Any, ...], tuple[float, ...]]
"""The kernel of the gradient, its inputs but dy, and its numbers."""


def cross_entropy_and_call(
    x: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    out: Array | None = None,
) -> tuple[Array, Array, Array, Call]:
    """cross_entropy, and what ``gradient`` takes."""
    op = "cross_entropy"
    x, weight = floats(op, x=x, weight=weight)
    sizes = _sizes(op, x)
    _check(op, x, weight, reduction)
    ignore_index = integer(op, "ignore_index", ignore_index)
    if not 0.0 <= real(op, "label_smoothing", label_smoothing) <= 1.0:
        raise ValueError(f"{op}: label_smoothing must be in [0, 1], got {label_smoothing}")
    target = _plain(op, target)
    soft = _is_soft(op, x, target)
    if soft:
        (target,) = floats(op, target=target)
        if target.dtype != x.dtype:
            raise TypeError(f"{op}: 'input' is {x.dtype} but 'target' (class probabilities) is {target.dtype}")
        if ignore_index >= 0:
            raise ValueError(f"{op}: ignore_index {ignore_index} needs labels; this target holds class probabilities")
    else:
        target = _labels(op, x, target)
    rows, mean, each = _rows(x), reduction == "mean", reduction == "none"
    kernel, numbers = ("cross_entropy_soft", (label_smoothing,)) if soft else (op, (ignore_index, label_smoothing))
    inputs, made = (x.reshape(sizes), target, weight), None
    if out is None and type(x) is np.ndarray:
        made = getattr(attempt, kernel)(*inputs, rows, (2, *rows), None if each else (), (), mean, *numbers)
    if made is not None:
        y, stats, divisor = made if each else (made[2], made[1], made[3])
    else:
        y = output(op, out, rows if each else (), x, x, target, weight)
        loss, y_sum = (y, None) if each else (empty(rows, x), y)
        stats, divisor = empty((2, *rows), x), empty((), x, np.float64)
        getattr(backend(op, x), kernel)(*inputs, loss, stats, y_sum, divisor, mean, *numbers)
    return deliver(y, out), stats, divisor, (kernel + "_backward", (*inputs, stats, divisor), numbers)


def _is_soft(op: str, x: Array, target: Array) -> bool:
    """Whether the target is class probabilities: of the scores' shape. Raises where that shape holds integers."""
    if getattr(target, "shape", None) != x.shape:
        return False
    if target.dtype.kind != "f":
        raise TypeError(
            f"{op}: 'target' has the shape of 'input', {x.shape}, so it must be class probabilities in {x.dtype}, got "
            f"{target.dtype}; labels have shape {x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()}"
        )
    return True


def cross_entropy_backward(
    dy: Array,
    x: Array,
    target: Array,
    weight: Array | None,
    stats: Array,
    divisor: Array,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    *,
    out: Array | None = None,
) -> Array:
    """The gradient of cross_entropy with respect to ``x``: ``(softmax(x) - target) * dy / divisor``, weighted."""
    op = "cross_entropy_backward"
    dy, x, weight, stats = floats(op, dy=dy, x=x, weight=weight, stats=stats)
    sizes = _sizes(op, x)
    _check(op, x, weight, "mean")
    rows, divisor = _rows(x), plain(op, "divisor", divisor)
    if stats.shape != (2, *rows) or divisor.shape != () or divisor.dtype != np.float64:
        raise ValueError(
            f"{op}: 'stats' must be {(2, *rows)} and 'divisor' one float64 number, as cross_entropy returned them, got "
            f"{stats.shape} and {divisor.shape} {divisor.dtype}"
        )
    if dy.shape not in ((), rows):
        raise ValueError(f"{op}: 'dy' must be one number or {rows}, one for each row of 'x' {x.shape}, got {dy.shape}")
    label_smoothing = real(op, "label_smoothing", label_smoothing)
    target = _plain(op, target)
    kernel, numbers = op, [ignore_index, label_smoothing]
    if _is_soft(op, x, target):
        kernel, numbers = "cross_entropy_soft_backward", [label_smoothing]
        _, target = floats(op, x=x, target=target)
    else:
        target = _labels(op, x, target)
    inputs = (x.reshape(sizes), target, weight, stats, contiguous(divisor))
    dx = None if out is None else output(op, out, x.shape, x, dy, x, target, weight, stats)
    return deliver(gradient(dy, x.shape, (kernel, inputs, tuple(numbers)), dx), out)


def gradient(dy: Array, shape: tuple[int, ...], call: Call, out: Array | None = None) -> Array:
    """cross_entropy_backward, of what ``cross_entropy_and_call`` gave for scores of ``shape``."""
    kernel, inputs, numbers = call
    (dy,) = floats("cross_entropy_backward", dy=dy)
    return launch(kernel, out, shape, (dy, *inputs), *numbers, seen=inputs[0].shape)


def nll_loss(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """(loss, divisor): ``-weight[label] * x[label]`` of log-probabilities ``x``."""
    op = "nll_loss"
    x, weight = floats(op, x=x, weight=weight)
    sizes = _sizes(op, x)
    _check(op, x, weight, reduction)
    target = _labels(op, x, target)
    y = output(op, out, target.shape if reduction == "none" else (), x, x, target, weight)
    loss, y_sum = (y, None) if reduction == "none" else (empty(target.shape, x), y)
    divisor = empty((), x, np.float64)
    backend(op, x).nll_loss(x.reshape(sizes), target, weight, loss, y_sum, divisor, reduction == "mean", ignore_index)
    return deliver(y, out), divisor


def nll_loss_backward(
    dy: Array,
    shape: tuple[int, ...],
    target: Array,
    weight: Array | None,
    divisor: Array,
    ignore_index: int = -100,
    *,
    out: Array | None = None,
) -> Array:
    """The gradient of nll_loss with respect to scores of ``shape``: ``-weight[label] * dy / divisor`` at each label."""
    op = "nll_loss_backward"
    dy, weight = floats(op, dy=dy, weight=weight)
    dx = output(op, out, sizes_of(op, "shape", shape), dy, dy, target, weight)
    target = _labels(op, dx, target)
    backend(op, dy).nll_loss_backward(dy, target, weight, divisor, dx.reshape(_sizes(op, dx)), ignore_index)
    return deliver(dx, out)
