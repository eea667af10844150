"""Optimizer steps, inference and whole training steps: eager on both sides, PyTorch with its fused optimizers."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn
from fastnn import models, nn, optim

from .case import Call, Calls, Case, arrays, layouts, torch

# Shapes of parameters: LeNet's ten small arrays, AlexNet-small's, and 12.6 million in a few large ones.
LARGE = [(4096, 2048), (2048, 1024), (1024, 1024), (1024, 1024)]


def shapes(model: str) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in models.create(model).parameters()]


def optimizer(name: str, which: str, sizes: list[tuple[int, ...]]) -> Case:
    """One step over all parameters; the bytes are of w, its gradient and its state, read, and what is written."""
    kind, options, streams = {
        "sgd": ("SGD", {"lr": 0.01}, 3),
        "sgd with momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}, 5),
        "adam": ("Adam", {"lr": 1e-3}, 7),
        "adamw": ("AdamW", {"lr": 1e-3}, 7),
    }[which]

    def make(side: str) -> Calls | None:
        values = arrays(sizes + sizes)
        half = len(sizes)
        if side == "fastnn":
            tensors = [fastnn.tensor(v, requires_grad=True) for v in values[:half]]
            for tensor, dw in zip(tensors, values[half:]):
                tensor.grad = fastnn.tensor(dw)
            return getattr(optim, kind)(tensors, **options).step
        if side == "numpy" and which == "sgd with momentum":
            buffers = [np.zeros_like(v) for v in values[:half]]

            def step() -> None:
                for w, dw, buffer in zip(values[:half], values[half:], buffers):
                    buffer *= 0.9
                    buffer += dw
                    w -= 0.01 * buffer

            return step
        if side == "torch" and (t := torch()):
            tensors = [t.from_numpy(v).requires_grad_() for v in values[:half]]
            for tensor, dw in zip(tensors, values[half:]):
                tensor.grad = t.from_numpy(dw)
            return getattr(t.optim, kind)(tensors, fused=True, **options).step
        return None

    count = sum(int(np.prod(s)) for s in sizes)
    return Case("optimizer", f"{which} on {name}", make, bytes=4.0 * streams * count)


def torch_model(t: Any, layer: Any) -> Any:
    """The same layers in PyTorch: their names and constructor arguments are the same by design."""
    if isinstance(layer, nn.Conv2d):
        return t.nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding)
    if isinstance(layer, nn.Linear):
        return t.nn.Linear(layer.in_features, layer.out_features)
    if isinstance(layer, nn.MaxPool2d):
        return t.nn.MaxPool2d(layer.kernel_size, layer.stride)
    if isinstance(layer, nn.Dropout):
        return t.nn.Dropout(layer.p)
    if isinstance(layer, models.ConvNet):
        return t.nn.Sequential(torch_model(t, layer.features), t.nn.Flatten(), torch_model(t, layer.classifier))
    children = list(layer.children())
    if children:
        return t.nn.Sequential(*(torch_model(t, child) for child in children))
    return getattr(t.nn, type(layer).__name__)()


def inference(model: str, batch: int) -> Case:
    """Evaluation mode, nothing recorded."""

    def make(side: str) -> Calls | None:
        net = models.create(model)
        (x,) = arrays([(batch, *net.input_shape)])
        if side == "fastnn":
            net.eval()
            inputs = fastnn.tensor(x)

            def call() -> None:
                with fastnn.no_grad():
                    net(inputs)

            return call
        if side == "torch" and (t := torch()):

            def of(x: Any) -> Call:
                peer = torch_model(t, net).eval()
                if not x.is_contiguous():
                    peer = peer.to(memory_format=t.channels_last)

                def call() -> None:
                    with t.inference_mode():
                        peer(x)

                return call

            return layouts(t, of, t.from_numpy(x))
        return None

    return Case("inference", f"{model} batch {batch}", make)


def training_step(model: str, batch: int, kind: str = "SGD") -> Case:
    """Forward, backward and the optimizer's step (SGD with momentum, or Adam)."""
    options = {"lr": 0.01, "momentum": 0.9} if kind == "SGD" else {"lr": 1e-3}

    def step(net: Any, optimizer: Any, loss: Any, inputs: Any, targets: Any) -> Call:
        def call() -> None:
            optimizer.zero_grad()
            loss(net(inputs), targets).backward()
            optimizer.step()

        return call

    def make(side: str) -> Calls | None:
        net = models.create(model)
        (x,) = arrays([(batch, *net.input_shape)])
        labels = np.arange(batch) % 10
        if side == "fastnn":
            ours = getattr(optim, kind)(net.parameters(), **options)
            return step(net, ours, nn.CrossEntropyLoss(), fastnn.tensor(x), fastnn.tensor(labels))
        if side == "torch" and (t := torch()):

            def of(x: Any) -> Call:
                peer = torch_model(t, net)
                if not x.is_contiguous():
                    peer = peer.to(memory_format=t.channels_last)
                fused = getattr(t.optim, kind)(peer.parameters(), fused=True, **options)
                return step(peer, fused, t.nn.CrossEntropyLoss(), x, t.from_numpy(labels))

            return layouts(t, of, t.from_numpy(x))
        return None

    return Case("training step", f"{model} batch {batch}" + (", Adam" if kind != "SGD" else ""), make)


CASES = [
    *(optimizer("lenet5", which, shapes("lenet5")) for which in ("sgd", "sgd with momentum", "adam", "adamw")),
    *(optimizer("alexnet_small", which, shapes("alexnet_small")) for which in ("sgd with momentum", "adam")),
    *(optimizer("12.6 million", which, LARGE) for which in ("sgd with momentum", "adam")),
    inference("mlp", 64),
    inference("lenet5", 1),
    inference("lenet5", 64),
    inference("alexnet_small", 1),
    inference("alexnet_small", 64),
    training_step("mlp", 64),
    training_step("lenet5", 8),
    training_step("lenet5", 64),
    training_step("lenet5", 512),
    training_step("lenet5", 64, "Adam"),
    training_step("alexnet_small", 64),
]
