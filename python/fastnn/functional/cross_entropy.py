"""Cross-entropy and negative log-likelihood: forward and gradient of each on one screen (csrc/cpu/cross_entropy.cpp).

The other losses, which need no kernel of their own, are in loss.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels
from ..autograd import Tensor, apply
from ..kernels._backend import Array, on
from ..kernels._check import plain
from ..kernels.cross_entropy import cross_entropy_and_call, gradient

__all__ = ["cross_entropy", "nll_loss"]


def only_reduction(op: str, size_average: bool | None, reduce: bool | None) -> None:
    """PyTorch's two oldest arguments keep their places, so that positional calls mean the same; they take only None."""
    if size_average is not None or reduce is not None:
        raise ValueError(f"{op}: size_average and reduce are not supported; use reduction='none', 'mean' or 'sum'")


def constant(op: str, name: str, x: Any) -> Array | None:
    """A copy of an argument that has no gradient (class weights), for the backward pass to find as it was."""
    if isinstance(x, Tensor):
        if x.requires_grad:
            raise ValueError(f"{op}: there is no gradient with respect to '{name}'; pass {name}.detach()")
        x = x.array
    if x is None:
        return None
    with on(x):
        return plain(op, name, x).copy()


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Cross-entropy of the logits ``input`` (C,), (N, C) or (N, C, d1, ...) with ``target``.

    ``target``: int64 labels in 0..C-1 of the same shape without C, or class probabilities of the input's shape.
    ``loss = -weight[t] * log(softmax(input)[t])``, 0 where the label is ``ignore_index``. ``"mean"`` divides by the sum
    of the labels' weights (NaN if all are ignored), or by the number of rows where the target is probabilities.
    ``label_smoothing`` e mixes the target with the uniform distribution: ``(1 - e) * target + e / C``.
    Raises ValueError naming the first label that is out of range; on a GPU, which nobody waits for, nothing is read by
    such a label, and its row's loss and gradient are NaN.

    >>> loss = cross_entropy(fastnn.tensor([[2.0, 1.0, 0.1]]), fastnn.tensor([0]))  # 0.417
    """
    only_reduction("cross_entropy", size_average, reduce)
    w = constant("cross_entropy", "weight", weight)

    def forward(x: Array, t: Array) -> Any:
        y, _, _, call = cross_entropy_and_call(x, t, w, ignore_index, reduction, label_smoothing)

        def vjp(dy: Array, need: Any) -> Any:
            dx = gradient(dy, x.shape, call) if need[0] else None
            dt = None
            if need[1]:  # only class probabilities can want one
                along = 1 if x.ndim > 1 else 0
                scale = (np.expand_dims(dy, along) if reduction == "none" else dy) * x.dtype.type(label_smoothing - 1)
                rows = x.size // max(1, x.shape[along]) if reduction == "mean" else 1
                dt = kernels.log_softmax(x, along) * scale / x.dtype.type(rows or 1)  # 0 of an empty batch
                if w is not None:
                    dt *= w.reshape(-1, *(1,) * (x.ndim - along - 1))
            return dx, dt

        return y, vjp

    return apply("cross_entropy", forward, input, target)


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """``-weight[t] * input[t]`` of log-probabilities ``input`` (C,), (N, C) or (N, C, d1, ...) at int64 labels ``t``.

    0 where the label is ``ignore_index``; ``"mean"`` divides by the sum of the labels' weights (NaN if none counts).
    """
    only_reduction("nll_loss", size_average, reduce)
    w = constant("nll_loss", "weight", weight)

    def forward(x: Array, t: Array) -> Any:
        y, divisor = kernels.nll_loss(x, t, w, ignore_index, reduction)
        shape = x.shape
        return y, lambda dy, need: (kernels.nll_loss_backward(dy, shape, t, w, divisor, ignore_index), None)

    return apply("nll_loss", forward, input, target)
