"""Normalisation layers: BatchNorm1d, BatchNorm2d, LayerNorm, LocalResponseNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..autograd import Tensor
from ..kernels._backend import here, zeros
from ..kernels._check import real
from . import init
from .module import Module
from .parameter import Parameter, blank, whole

__all__ = ["BatchNorm1d", "BatchNorm2d", "LayerNorm", "LocalResponseNorm"]


class _BatchNorm(Module):
    """What the batch norms share. State: weight, bias (``affine``); running_mean, running_var, num_batches_tracked."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    _dims: tuple[int, ...]
    _layout: str

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        op = type(self).__name__
        self.num_features = whole(op, "num_features", num_features)
        real(type(self).__name__, "eps", eps)
        if momentum is not None:
            real(type(self).__name__, "momentum", momentum)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats

        def new() -> Tensor:
            return blank(op, self.num_features, dtype=dtype, device=device)

        self.register_parameter("weight", Parameter(new()) if affine else None)
        self.register_parameter("bias", Parameter(new()) if affine and bias else None)
        self.register_buffer("running_mean", new() if track_running_stats else None)
        self.register_buffer("running_var", new() if track_running_stats else None)
        count = Tensor(zeros((), here(op, device), "int64")) if track_running_stats else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Any) -> Any:
        if len(input.shape) not in self._dims:
            raise ValueError(f"batch_norm: 'input' must be {self._layout}, got shape {tuple(input.shape)}")
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"batch_norm: 'input' of shape {tuple(input.shape)} has {input.shape[1]} channels, "
                f"num_features is {self.num_features}"
            )
        factor = 0.0 if self.momentum is None else self.momentum
        tracked = self.num_batches_tracked
        if self.training and self.track_running_stats and tracked is not None:
            tracked += 1
            if self.momentum is None:  # the plain average over all batches
                factor = 1.0 / int(tracked)
        use_batch = self.training or (self.running_mean is None and self.running_var is None)
        keep = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if keep else None,
            self.running_var if keep else None,
            self.weight,
            self.bias,
            use_batch,
            factor,
            self.eps,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` per channel, of (N, C) or (N, C, L) input.

    In training, mean and variance are the batch's and move the running ones by ``momentum`` (None: a plain average); in
    evaluation they are the running ones. Source: Ioffe, Szegedy (2015).
    """

    _dims, _layout = (2, 3), "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` per channel, of (N, C, H, W) input; otherwise as BatchNorm1d."""

    _dims, _layout = (4,), "(N, C, H, W)"


class LayerNorm(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias``, each sample over its last dimensions ``normalized_shape``.

    Source: Ba, Kiros, Hinton (2016).
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        sizes = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        self.normalized_shape = tuple(whole("LayerNorm", "normalized_shape", n) for n in sizes)
        real("LayerNorm", "eps", eps)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        shape = self.normalized_shape
        for name, used in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            new = Parameter(blank("LayerNorm", *shape, dtype=dtype, device=device)) if used else None
            self.register_parameter(name, new)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Any) -> Any:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = self.elementwise_affine
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}, bias={self.bias is not None}"


class LocalResponseNorm(Module):
    """``x / (k + alpha / size * sum of x^2 over size neighbouring channels)^beta``, as in AlexNet (2012)."""

    def __init__(self, size: int, alpha: float = 0.0001, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Any) -> Any:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
