"""What is timed: each case once, for fastnn and for its peers, on the models' real shapes.

Both runners read this list: `pytest bench` (pytest-benchmark: absolute times) and `python bench/compare.py` (paired,
interleaved ratios: the figures to quote). A side that cannot do a case, or is not installed, gives None.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import functional as F
from fastnn import kernels, models, nn, optim

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from records import all_records

SIDES = ("fastnn", "numpy", "torch")
Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """``make(side)`` gives the function to time, or None; ``flops`` is what one call computes, where that is meant."""

    group: str
    name: str
    make: Callable[[str], Call | None]
    flops: float = 0.0


def torch() -> Any:
    """The peer, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def gemm(m: int, n: int, k: int) -> Case:
    def make(side: str) -> Call | None:
        a, b = arrays((m, k), (k, n))
        c = np.empty((m, n), np.float32)
        if side == "fastnn":
            return lambda: kernels.gemm(a, b, out=c)
        if side == "numpy":
            return lambda: np.matmul(a, b, out=c)
        if t := torch():
            ta, tb, tc = t.from_numpy(a), t.from_numpy(b), t.from_numpy(c)
            return lambda: t.mm(ta, tb, out=tc)
        return None

    return Case("gemm", f"{m}x{n}x{k}", make, 2.0 * m * n * k)


def conv(name: str, n: int, c: int, size: int, k: int, r: int, stride: int = 1, padding: int = 0) -> Iterator[Case]:
    """One layer, batch n, c to k channels, r x r kernels: forward, gradient of the input, gradient of the weight."""
    out = (size + 2 * padding - r) // stride + 1
    shapes = ((n, c, size, size), (k, c, r, r), (k,), (n, k, out, out))
    options = {"stride": stride, "padding": padding}

    def make(side: str, which: str) -> Call | None:
        x, w, bias, dy = arrays(*shapes)
        if side == "fastnn":
            return {
                "forward": lambda: kernels.conv2d(x, w, bias, **options),
                "dx": lambda: kernels.conv2d_backward_input(dy, w, x.shape, **options),
                "dw": lambda: kernels.conv2d_backward_weight(dy, x, w.shape, **options),
            }[which]
        t = torch()
        if side != "torch" or t is None:
            return None
        tx, tw, tb, tdy = map(t.from_numpy, (x, w, bias, dy))
        if which == "forward":
            return lambda: t.nn.functional.conv2d(tx, tw, tb, **options)
        mask = [which == "dx", which == "dw", False]
        fixed = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, mask)
        return lambda: t.ops.aten.convolution_backward(tdy, tx, tw, None, *fixed)

    flops = 2.0 * n * k * out * out * c * r * r
    for which in ("forward", "dx", "dw"):
        if which == "dx" and name.endswith("1"):
            continue  # a first layer's input wants no gradient
        yield Case("conv2d", f"{name} {which}", lambda side, which=which: make(side, which), flops)


def pool(name: str, n: int, c: int, size: int) -> Iterator[Case]:
    def forward(side: str) -> Call | None:
        (x,) = arrays((n, c, size, size))
        if side == "fastnn":
            return lambda: F.max_pool2d(x, 2)
        if side == "torch" and (t := torch()):
            tx = t.from_numpy(x)
            return lambda: t.nn.functional.max_pool2d(tx, 2)
        return None

    def both(side: str) -> Call | None:
        x, dy = arrays((n, c, size, size), (n, c, size // 2, size // 2))
        if side == "fastnn":
            leaf = fastnn.tensor(x, requires_grad=True)
            return lambda: F.max_pool2d(leaf, 2).backward(dy)
        if side == "torch" and (t := torch()):
            tx, tdy = t.from_numpy(x).requires_grad_(), t.from_numpy(dy)
            return lambda: t.nn.functional.max_pool2d(tx, 2).backward(tdy)
        return None

    yield Case("max_pool2d", f"{name} forward", forward)
    yield Case("max_pool2d", f"{name} forward and backward", both)


def activation(op: str, size: int) -> Case:
    def make(side: str) -> Call | None:
        (x,) = arrays((size,))
        if side == "fastnn":
            function = getattr(F, op)
            return lambda: function(x)
        if side == "numpy":
            return (lambda: np.maximum(x, 0)) if op == "relu" else None
        if t := torch():
            peer, tx = getattr(t.nn.functional, op), t.from_numpy(x)
            return lambda: peer(tx)
        return None

    return Case("activation", f"{op} of {size}", make)


def cross_entropy(n: int, classes: int) -> Case:
    def make(side: str) -> Call | None:
        (x,) = arrays((n, classes))
        labels = np.arange(n) % classes
        if side == "fastnn":
            leaf, target = fastnn.tensor(x, requires_grad=True), fastnn.tensor(labels)
            return lambda: F.cross_entropy(leaf, target).backward()
        if side == "torch" and (t := torch()):
            tx, tl = t.from_numpy(x).requires_grad_(), t.from_numpy(labels)
            return lambda: t.nn.functional.cross_entropy(tx, tl).backward()
        return None

    return Case("cross_entropy", f"{n}x{classes} forward and backward", make)


def training_step(model: str, batch: int) -> Case:
    """Forward, backward and SGD with momentum, eager on both sides; PyTorch with its fused optimizer."""

    def make(side: str) -> Call | None:
        net = models.create(model)
        (x,) = arrays((batch, *net.input_shape))
        labels = np.arange(batch) % 10
        if side == "fastnn":
            optimizer: Any = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
            inputs, targets, loss = fastnn.tensor(x), fastnn.tensor(labels), nn.CrossEntropyLoss()
        elif side == "torch" and (t := torch()):
            net = torch_model(t, net)
            optimizer = t.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
            inputs, targets, loss = t.from_numpy(x), t.from_numpy(labels), t.nn.CrossEntropyLoss()
        else:
            return None

        def step() -> None:
            optimizer.zero_grad()
            loss(net(inputs), targets).backward()
            optimizer.step()

        return step

    return Case("training step", f"{model} batch {batch}", make)


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


def record_case(record: Any) -> Case:
    """Every op at least once: the largest sample of its record."""

    def make(side: str) -> Call | None:
        if side != "fastnn":
            return None
        samples = record.samples(np.random.default_rng(0))
        sample = max(samples, key=lambda s: sum(getattr(a, "size", 0) for a in s.args))
        args = [a.astype(np.float32) if getattr(a, "dtype", None) == np.float64 else a for a in sample.args]
        return lambda: record.op(*args, **sample.kwargs)

    return Case("record", record.name, make)


ALEXNET_SMALL = (("1", 3, 32, 64), ("2", 64, 16, 192), ("3", 192, 8, 384), ("4", 384, 8, 256), ("5", 256, 8, 256))

CASES: list[Case] = [
    *(gemm(n, n, n) for n in (64, 128, 256, 512, 1024)),
    *(gemm(*shape) for shape in ((100, 16, 150), (64, 120, 400), (64, 1024, 4096), (4096, 512, 64))),
    *conv("lenet conv1", 64, 1, 28, 6, 5, padding=2),
    *conv("lenet conv2", 64, 6, 14, 16, 5),
    *(case for i, c, size, k in ALEXNET_SMALL for case in conv(f"alexnet-small conv{i}", 64, c, size, k, 3, padding=1)),
    *pool("lenet pool1", 64, 6, 28),
    *pool("lenet pool2", 64, 16, 10),
    *(activation(op, size) for op in ("relu", "tanh", "sigmoid", "gelu") for size in (7680, 1_000_000)),
    cross_entropy(64, 10),
    cross_entropy(1024, 1000),
    training_step("mlp", 64),
    training_step("lenet5", 64),
    training_step("alexnet_small", 64),
    *(record_case(record) for record in all_records()),
]
