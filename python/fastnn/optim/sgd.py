"""Stochastic gradient descent; the arithmetic is kernels.sgd_step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import kernels
from ..tape import note_change
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

    def _update(self, group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        options = {key: group[key] for key in ("lr", "dampening", "weight_decay", "nesterov", "maximize")}
        known: tuple[list[Any], ...] = ([], [], [])  # parameters, gradients, buffers
        fresh: tuple[list[Any], ...] = ([], [], [])  # the same, of parameters that have no buffer yet
        for p in group["params"]:
            gradient = p._grad
            if gradient is None:
                continue
            lists = known
            if momentum != 0:
                state = self.state[p]
                buffer = state.get("momentum_buffer")
                if buffer is None:
                    buffer = state["momentum_buffer"] = zeros_like(p)
                    lists = fresh
                lists[2].append(buffer.array)
            lists[0].append(p.array)
            lists[1].append(gradient.array)
            note_change(p)
        for lists, first in ((known, False), (fresh, True)):
            if lists[0]:
                buffers = lists[2] if momentum != 0 else None
                kernels.sgd_step(lists[0], lists[1], buffers, momentum=momentum, first=first, **options)
