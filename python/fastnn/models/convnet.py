"""Convolutional networks: ``features`` (convolutions and pools), then ``classifier`` (fully connected)."""

from __future__ import annotations

from typing import Any

from .. import nn
from .mlp import activation_layer

__all__ = ["ConvNet", "alexnet_small", "lenet5"]


class ConvNet(nn.Module):
    """``classifier(flatten(features(x)))``: (N, C, H, W) -> (N, classes)."""

    def __init__(
        self, name: str, input_shape: tuple[int, ...], features: nn.Sequential, classifier: nn.Sequential
    ) -> None:
        super().__init__()
        self.name, self.input_shape = name, input_shape
        self.features, self.classifier = features, classifier
        self.flatten = nn.Flatten()

    def forward(self, input: Any) -> Any:
        return self.classifier(self.flatten(self.features(input)))


def lenet5(num_classes: int = 10, activation: str = "relu", pool: str = "max") -> nn.Module:
    """LeNet-5 for (N, 1, 28, 28): 6 and 16 maps of 5x5, pooled by 2, then 120-84-10: 61,706 parameters.

    With ``activation="tanh", pool="avg"`` as first published. Source: LeCun, Bottou, Bengio, Haffner (1998).
    """
    if pool not in ("max", "avg"):
        raise ValueError(f"lenet5: pool must be 'max' or 'avg', got {pool!r}")
    pool_layer = nn.MaxPool2d if pool == "max" else nn.AvgPool2d
    features = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),  # 28x28
        activation_layer("lenet5", activation),
        pool_layer(2),  # 14x14
        nn.Conv2d(6, 16, 5),  # 10x10
        activation_layer("lenet5", activation),
        pool_layer(2),  # 5x5
    )
    classifier = nn.Sequential(
        nn.Linear(16 * 5 * 5, 120),
        activation_layer("lenet5", activation),
        nn.Linear(120, 84),
        activation_layer("lenet5", activation),
        nn.Linear(84, num_classes),
    )
    return ConvNet("lenet5", (1, 28, 28), features, classifier)


def alexnet_small(num_classes: int = 10, dropout: float = 0.5) -> nn.Module:
    """AlexNet for (N, 3, 32, 32), as CIFAR-10's images.

    3x3 convolutions of 64-192-384-256-256 maps, pooled by 2 after the 1st, 2nd and 5th, then 4096-1024-512-10 with
    dropout before the first two. Source: Krizhevsky, Sutskever, Hinton (2012).
    """
    features = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),  # 32x32
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 192, 3, padding=1),  # 16x16
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(192, 384, 3, padding=1),  # 8x8
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),  # 4x4
    )
    classifier = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(256 * 4 * 4, 1024),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Linear(512, num_classes),
    )
    return ConvNet("alexnet_small", (3, 32, 32), features, classifier)
