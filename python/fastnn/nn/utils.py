"""Gradients and parameters of a whole network at once: clipping, and one long vector."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any

import numpy as np

from .. import kernels
from ..autograd import Tensor, no_grad
from ..functional.shaping import cat
from ..kernels._backend import moved
from ..tape import note_change

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "vector_to_parameters"]


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in tensors if p.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients, in place, so that their norm as one vector is at most ``max_norm``; returns the norm before.

    ``norm_type`` is p of the p-norm; ``inf`` means the largest absolute value.
    """
    gradients = _gradients(parameters)
    if not float(norm_type) > 0:
        raise ValueError(f"clip_grad_norm_: norm_type must be positive, got {norm_type}")
    arrays = [gradient.array for gradient in gradients]
    total = kernels.total_norm(arrays, float(norm_type))
    if error_if_nonfinite and not isfinite(total):
        raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {total}; they contain NaN or inf")
    factor = max_norm / (total + 1e-6)
    if not factor >= 1:  # NaN reaches the gradients, as in PyTorch
        kernels.scale(arrays, factor)
        note_change(*arrays)
    norm = np.asarray(total, gradients[0].dtype if gradients else np.float32)
    return Tensor(moved(norm, arrays[0]) if arrays else norm)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every element of the gradients, in place, to [-clip_value, clip_value]."""
    limit = float(clip_value)
    for gradient in _gradients(parameters):
        kernels.hardtanh(gradient.array, -limit, limit, out=gradient.array)
        note_change(gradient.array)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Any:
    """All parameters, flattened, one after the other."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy consecutive pieces of ``vec`` into the parameters: the opposite of ``parameters_to_vector``."""
    tensors = list(parameters)
    needed = sum(p.numel() for p in tensors)
    if vec.ndim != 1 or vec.numel() != needed:
        raise ValueError(f"vector_to_parameters: needs a vector of {needed} elements, got shape {vec.shape}")
    start = 0
    with no_grad():
        for p in tensors:
            p.copy_(vec.array[start : start + p.numel()].reshape(p.shape))
            start += p.numel()
