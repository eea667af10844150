"""Layers that mix or rearrange features: Linear, Identity, Flatten, Unflatten."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

from .. import functional as F
from ..functional.reduction import axes
from ..functional.shaping import flatten, reshape
from . import init
from .module import Module
from .parameter import Parameter, blank, whole

__all__ = ["Flatten", "Identity", "Linear", "Unflatten"]


class Linear(Module):
    """``y = x W^T + b``: x (*, in_features) -> y (*, out_features); ``weight`` is (out_features, in_features).

    Weights and biases start uniform in +-1 / sqrt(in_features).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.in_features = whole("Linear", "in_features", in_features)
        self.out_features = whole("Linear", "out_features", out_features)
        self.weight = Parameter(blank("Linear", self.out_features, self.in_features, dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(blank("Linear", self.out_features, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        reset_weight_and_bias(self.weight, self.bias)

    def forward(self, input: Any) -> Any:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def reset_weight_and_bias(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's start for Linear and convolutions: both uniform in +-1 / sqrt(fan_in)."""
    if weight.numel():
        init.kaiming_uniform_(weight, a=sqrt(5))
    if bias is not None:
        fan_in = prod(weight.shape[1:])
        init.uniform_(bias, -1 / sqrt(fan_in), 1 / sqrt(fan_in)) if fan_in else init.zeros_(bias)


class Identity(Module):
    """Returns its input; takes and ignores any arguments, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Flatten(Module):
    """Make dimensions ``start_dim`` to ``end_dim`` (both included) one: (N, C, H, W) -> (N, C*H*W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Any:
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split dimension ``dim`` into ``unflattened_size``: the opposite of Flatten."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = (
            dim,
            tuple(whole("Unflatten", "unflattened_size", n, -1) for n in unflattened_size),
        )

    def forward(self, input: Any) -> Any:
        at = axes("unflatten", self.dim, len(input.shape))[0]
        return reshape(input, *input.shape[:at], *self.unflattened_size, *input.shape[at + 1 :])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
