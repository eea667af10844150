"""Stochastic gradient descent; the arithmetic is kernels.sgd_step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import kernels
from .optimizer import Optimizer, require, zeros_like

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent with momentum: ``b = momentum * b + (1 - dampening) * g``, ``p -= lr * b``, where
    ``g = grad + weight_decay * p``.

    ``nesterov`` steps along ``g + momentum * b`` instead; the first b is g. ``maximize`` climbs. State per parameter:
    ``momentum_buffer``.
    """

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
    ) -> None:
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

    def _update(self, group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        options = {
            "lr": group["lr"],
            "momentum": momentum,
            "dampening": group["dampening"],
            "weight_decay": group["weight_decay"],
            "nesterov": group["nesterov"],
            "maximize": group["maximize"],
        }
        for p in group["params"]:
            gradient = p.grad
            if gradient is None:
                continue
            buffer, first = None, False
            if momentum != 0:
                state = self.state[p]
                buffer = state.get("momentum_buffer")
                if buffer is None:
                    buffer, first = zeros_like(p), True
                    state["momentum_buffer"] = buffer
                buffer = buffer.array
            kernels.sgd_step(p.array, gradient.array, buffer, first=first, **options)
            p._version.number += 1
