"""Stochastic gradient descent; the arithmetic is kernels.sgd_step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import kernels
from .optimizer import Optimizer, refuse, require, zeros_like

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent with momentum: ``b = momentum * b + (1 - dampening) * g``, ``p -= lr * b``, where
    ``g = grad + weight_decay * p``.

    ``nesterov`` steps along ``g + momentum * b`` instead; the first b is g. ``maximize`` climbs. State per parameter:
    ``momentum_buffer``. PyTorch's ``foreach``, ``differentiable`` and ``fused`` may be passed but not set.
    """

    _remembered = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse("SGD", foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check(self, options: Mapping[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            require("SGD", name, options[name], 0)
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError("SGD: nesterov needs a momentum above 0 and dampening 0")

    def _update(self, group: dict[str, Any], parameters: list[Any]) -> None:
        momentum = group["momentum"]
        options = {key: group[key] for key in ("lr", "dampening", "weight_decay", "nesterov", "maximize")}
        if momentum == 0:
            kernels.sgd_step([p.array for p in parameters], [p._grad.array for p in parameters], **options)
            return
        state = self.state
        old = [p for p in parameters if state[p].get("momentum_buffer") is not None]
        new = [p for p in parameters if state[p].get("momentum_buffer") is None] if len(old) < len(parameters) else []
        for p in new:
            state[p]["momentum_buffer"] = zeros_like(p)
        for some, first in ((old, False), (new, True)):
            if some:
                w, dw = [p.array for p in some], [p._grad.array for p in some]
                buffers = [state[p]["momentum_buffer"].array for p in some]
                kernels.sgd_step(w, dw, buffers, momentum=momentum, first=first, **options)
