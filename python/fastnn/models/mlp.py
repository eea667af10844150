"""Networks of fully connected layers: a single unit, and layers of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .. import nn
from ..autograd import Tensor

__all__ = ["MLP", "activation_layer", "mlp", "perceptron"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


def activation_layer(op: str, name: str) -> nn.Module:
    """The layer called ``name``: "relu", "sigmoid", "tanh", ..."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"{op}: unknown activation {name!r}; use one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


class MLP(nn.Sequential):
    """Fully connected layers with an activation between them: (N, ...), flattened, -> (N, sizes[-1])."""

    def __init__(self, sizes: Sequence[int], activation: str = "relu") -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            if i:
                layers.append(activation_layer("mlp", activation))
            layers.append(nn.Linear(inputs, outputs))
        super().__init__(*layers)


def mlp(
    sizes: Sequence[int] = (784, 16, 16, 10),
    activation: str = "sigmoid",
    input_shape: Sequence[int] | None = None,
) -> nn.Module:
    """784-16-16-10 with sigmoids by default: 13,002 parameters. ``sizes`` are the numbers of units, input first.

    The last layer has no activation: its outputs are logits, for cross-entropy. Input: (N, 1, 28, 28), or
    ``input_shape``.
    """
    if len(sizes) < 2:
        raise ValueError(f"mlp: sizes needs at least an input and an output, got {tuple(sizes)}")
    shape = tuple(input_shape) if input_shape is not None else (1, 28, 28) if sizes[0] == 784 else (sizes[0],)
    model = MLP(sizes, activation)
    model.name, model.input_shape = "mlp", shape
    return model


class Perceptron(nn.Module):
    """One unit: ``activation(w x + b)``, (N, inputs) -> (N, 1)."""

    def __init__(self, inputs: int, activation: str) -> None:
        super().__init__()
        self.unit = nn.Linear(inputs, 1)
        self.activation = activation

    def forward(self, input: Any) -> Any:
        y = self.unit(input)
        if self.activation == "sigmoid":
            return nn.functional.sigmoid(y)
        fires = (y.array if isinstance(y, Tensor) else y) > 0
        fires = fires.astype(y.dtype)
        return Tensor(fires) if isinstance(y, Tensor) else fires

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"


def perceptron(inputs: int = 2, activation: str = "sigmoid") -> nn.Module:
    """One unit, sigmoid or threshold ("step": 1 where ``w x + b > 0``, else 0; no gradient).

    Source: Rosenblatt (1958).
    """
    if activation not in ("sigmoid", "step"):
        raise ValueError(f"perceptron: activation must be 'sigmoid' or 'step', got {activation!r}")
    model = Perceptron(inputs, activation)
    model.name, model.input_shape = "perceptron", (inputs,)
    return model
