"""Dropout layers: in training they zero elements (Dropout) or whole channels (Dropout2d); in evaluation, nothing."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..kernels._check import real
from .module import Module

__all__ = ["Dropout", "Dropout2d"]


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= real(type(self).__name__, "p", p) <= 1:
            raise ValueError(f"{type(self).__name__}: p is a probability, 0 to 1, got {p}")
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zero each element with probability ``p`` and scale the others by 1 / (1 - p); only in training."""

    def forward(self, input: Any) -> Any:
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """Zero each whole channel with probability ``p`` and scale the others by 1 / (1 - p); only in training."""

    def forward(self, input: Any) -> Any:
        return F.dropout2d(input, self.p, self.training, self.inplace)
