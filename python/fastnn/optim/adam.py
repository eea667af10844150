"""Adam and AdamW; the arithmetic is kernels.adam_step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import kernels
from .optimizer import Optimizer, refuse, require, zeros_like

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Steps of about ``lr`` in each coordinate: the mean gradient over the root of the mean squared gradient.

    ``p -= lr * m / (sqrt(v) + eps)``, m and v the bias-corrected running means of grad and grad^2 (``betas``).
    ``weight_decay`` is added to the gradient, or shrinks p directly with ``decoupled_weight_decay`` (AdamW).
    ``amsgrad`` uses the largest v so far. State per parameter: ``step``, ``exp_avg``, ``exp_avg_sq``,
    ``max_exp_avg_sq``. PyTorch's ``foreach``, ``capturable``, ``differentiable`` and ``fused`` may be passed but not
    set. Source: Kingma, Ba (2015).
    """

    _remembered = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _fixed = ("decoupled_weight_decay",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        refuse(self._name, foreach=foreach, capturable=capturable, differentiable=differentiable, fused=fused)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def _check(self, options: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            require(self._name, name, options[name], 0)
        if not isinstance(options["betas"], (tuple, list)) or len(options["betas"]) != 2:
            raise TypeError(f"{self._name}: betas must be two numbers, got {options['betas']!r}")
        for i in (0, 1):
            require(self._name, f"betas[{i}]", options["betas"][i], 0, 1)

    def _update(self, group: dict[str, Any], parameters: list[Any]) -> None:
        beta1, beta2 = group["betas"]
        amsgrad = group["amsgrad"]
        options = {
            "lr": group["lr"],
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
            "decoupled": group["decoupled_weight_decay"],
            "maximize": group["maximize"],
        }
        steps: dict[int, tuple[list[Any], ...]] = {}  # parameters without a gradient in some step lag behind
        for p in parameters:
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=zeros_like(p), exp_avg_sq=zeros_like(p))
            if amsgrad and "max_exp_avg_sq" not in state:
                state["max_exp_avg_sq"] = zeros_like(p)
            state["step"] = step = int(state["step"]) + 1
            lists = steps.setdefault(step, ([], [], [], [], []))
            lists[0].append(p.array)
            lists[1].append(p._grad.array)
            lists[2].append(state["exp_avg"].array)
            lists[3].append(state["exp_avg_sq"].array)
            if amsgrad:
                lists[4].append(state["max_exp_avg_sq"].array)
        for step, (w, dw, mean, square, largest) in steps.items():
            kernels.adam_step(w, dw, mean, square, largest if amsgrad else None, step=step, **options)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly: ``p *= 1 - lr * weight_decay``, then the step.

    Source: Loshchilov, Hutter, "Decoupled weight decay regularization" (2019).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse(self._name, foreach=foreach, capturable=capturable, differentiable=differentiable, fused=fused)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)
