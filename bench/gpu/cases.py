"""The cases on a GPU: matrix products, AlexNet-small's convolutions, memory-bound ops, training steps.

Every side works on the same arrays (zero copy, by DLPack) in the precision that the case names: PyTorch's cuBLAS and
cuDNN are told the same, with TF32 for "medium", float32 for "highest", and float32 too beside "high", which stands for
float32's accuracy on the tensor cores. For "bfloat16" the peer's arrays are bfloat16, ours float32 as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from cases.case import torch
from cases.training import torch_model

import fastnn
from fastnn import functional as F
from fastnn import kernels, models, nn, optim

Call = Callable[[], Any]
PEERS = ("torch", "compile", "graph", "cupy")  # eager; torch.compile; a CUDA graph of PyTorch's step; cupy.matmul
PRECISIONS = ("highest", "high", "medium", "bfloat16")


@dataclass(frozen=True)
class Case:
    """``make(side)`` gives the function to time, or None; ``flops`` and ``bytes`` are what a call must do."""

    group: str
    name: str
    make: Callable[[str], Call | None]
    flops: float = 0.0
    bytes: float = 0.0
    precision: str = "highest"

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name}"


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    """Normal random numbers on the device."""
    fastnn.manual_seed(0)
    return [fastnn.randn(*shape, device="cuda").array for shape in shapes]


def as_torch(precision: str, *xs: Any) -> list[Any]:
    t = torch()
    tensors = [t.from_dlpack(x) for x in xs]
    return [x.bfloat16() if x.is_floating_point() else x for x in tensors] if precision == "bfloat16" else tensors


def tell_torch(precision: str) -> None:
    """The peer's precision, for all that it does next."""
    if t := torch():
        t.backends.cuda.matmul.allow_tf32 = t.backends.cudnn.allow_tf32 = precision == "medium"
        t.backends.cudnn.benchmark = True


def ours(precision: str) -> AbstractContextManager[Any]:
    """Fastnn's precision, in a block."""
    if precision == "bfloat16":
        return fastnn.autocast()
    fastnn.set_float32_matmul_precision(precision)
    return nullcontext()


def gemm(m: int, n: int, k: int, precision: str, trans_a: bool = False, trans_b: bool = False) -> Case:
    def make(side: str) -> Call | None:
        a, b = arrays((k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n))
        if side == "fastnn":
            y = arrays((m, n))[0]
            return lambda: kernels.gemm(a, b, trans_a=trans_a, trans_b=trans_b, out=y)
        turn = (a.T if trans_a else a, b.T if trans_b else b)
        if side == "cupy" and precision == "highest":
            return lambda: turn[0] @ turn[1]
        if side == "torch" and (t := torch()):
            a, b = as_torch(precision, a, b)
            a, b = a.T if trans_a else a, b.T if trans_b else b
            y = t.empty(m, n, dtype=a.dtype, device="cuda")
            return lambda: t.matmul(a, b, out=y)
        return None

    letters = ("t" if trans_a else "n") + ("t" if trans_b else "n")
    return Case("gemm", f"{m}x{n}x{k} {letters} {precision}", make, 2.0 * m * n * k, precision=precision)


def conv(name: str, n: int, c: int, size: int, k: int, r: int, padding: int, precision: str) -> Iterator[Case]:
    """Forward, gradient of the input (not of a first layer), gradient of the weight; stride 1."""
    x_shape, w_shape, y_shape = (n, c, size, size), (k, c, r, r), (n, k, *(size + 2 * padding - r + 1,) * 2)
    flops = 2.0 * n * k * y_shape[2] ** 2 * c * r * r

    def case(part: str, shapes: list[tuple[int, ...]], mine: Any, theirs: Any) -> Case:
        def make(side: str) -> Call | None:
            xs = arrays(*shapes)
            if side == "fastnn":
                return lambda: mine(*xs)
            if side == "torch" and torch():
                tensors = as_torch(precision, *xs)
                return lambda: theirs(torch(), *tensors)
            return None

        return Case("conv2d", f"{name} {part} {precision}", make, flops, precision=precision)

    def gradient(mask: list[bool]) -> Any:
        fixed = ([1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, mask)
        return lambda t, dy, x, w: t.ops.aten.convolution_backward(dy, x, w, None, *fixed)

    yield case(
        "forward",
        [x_shape, w_shape, (k,)],
        lambda x, w, b: kernels.conv2d(x, w, b, padding=padding),
        lambda t, x, w, b: t.nn.functional.conv2d(x, w, b, padding=padding),
    )
    both = [y_shape, x_shape, w_shape]
    if c > 3:
        yield case(
            "dx",
            both,
            lambda dy, x, w: kernels.conv2d_backward_input(dy, w, x_shape, padding=padding),
            gradient([True, False, False]),
        )
    yield case(
        "dw",
        both,
        lambda dy, x, w: kernels.conv2d_backward_weight(dy, x, w_shape, padding=padding),
        gradient([False, True, False]),
    )


def op(name: str, shapes: list[tuple[int, ...]], passes: float, mine: Any, theirs: Any, labels: int = 0) -> Case:
    """A memory-bound op; it must move ``passes`` times the first array. ``labels``: a target of so many classes."""

    def make(side: str) -> Call | None:
        xs = arrays(*shapes)
        if labels:
            xs.append(fastnn.tensor(np.arange(shapes[0][0]) % labels, device="cuda").array)
        if side == "fastnn":
            return lambda: mine(*xs)
        if side == "torch" and (t := torch()):
            tensors = as_torch("highest", *xs)
            return lambda: theirs(t, *tensors)
        return None

    return Case("memory", name, make, bytes=4.0 * passes * float(np.prod(shapes[0])))


def optimizer_step(kind: str, count: int, streams: int) -> Case:
    """One step over ``count`` parameters in 16 arrays; ``streams`` reads and writes of each."""

    def make(side: str) -> Call | None:
        xs = arrays(*[(count // 16,)] * 32)
        options = {"lr": 0.01, "momentum": 0.9} if kind == "SGD" else {"lr": 1e-3}
        if side == "fastnn":
            parameters = [fastnn.Tensor(x, requires_grad=True) for x in xs[:16]]
            for p, dw in zip(parameters, xs[16:]):
                p.grad = fastnn.Tensor(dw)
            return getattr(optim, kind)(parameters, **options).step
        if side == "torch" and (t := torch()):
            tensors = [x.requires_grad_() for x in as_torch("highest", *xs[:16])]
            for p, dw in zip(tensors, as_torch("highest", *xs[16:])):
                p.grad = dw
            return getattr(t.optim, kind)(tensors, fused=True, **options).step
        return None

    return Case("memory", f"{kind} step, {count >> 20} million parameters", make, bytes=4.0 * streams * count)


def training_step(model: str, batch: int, precision: str) -> Case:
    """Forward, backward, SGD with momentum; images a second are batch / time."""

    def make(side: str) -> Call | None:
        net = models.create(model)
        x = arrays((batch, *net.input_shape))[0]
        y = fastnn.tensor(np.arange(batch) % 10, device="cuda").array
        if side == "fastnn":
            net.to("cuda")
            optimizer, loss = optim.SGD(net.parameters(), 0.01, momentum=0.9), nn.CrossEntropyLoss()
            inputs, targets = fastnn.Tensor(x), fastnn.Tensor(y)

            def call() -> None:
                optimizer.zero_grad()
                loss(net(inputs), targets).backward()
                optimizer.step()

            return call
        t = torch()
        if side == "cupy" or t is None:
            return None
        return torch_step(t, side, torch_model(t, net).cuda(), *as_torch("highest", x, y), precision)

    return Case("training step", f"{model} batch {batch} {precision}", make, precision=precision)


def torch_step(t: Any, side: str, net: Any, x: Any, y: Any, precision: str) -> Call:
    graph = side == "graph"
    optimizer = t.optim.SGD(net.parameters(), 0.01, momentum=0.9, fused=True)
    run = t.compile(net) if side == "compile" else net

    def call() -> None:
        optimizer.zero_grad(set_to_none=not graph)
        with t.autocast("cuda", t.bfloat16, enabled=precision == "bfloat16"):
            loss = t.nn.functional.cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()

    if not graph:
        return call
    stream = t.cuda.Stream()
    stream.wait_stream(t.cuda.current_stream())
    with t.cuda.stream(stream):
        for _ in range(3):
            call()
    t.cuda.current_stream().wait_stream(stream)
    recorded = t.cuda.CUDAGraph()
    with t.cuda.graph(recorded):
        call()
    return recorded.replay


BIG = (8192, 8192)
MAPS = (256, 64, 32, 32)
LAYERS = [("conv1", 3, 32, 64), ("conv2", 64, 16, 192), ("conv3", 192, 8, 384), ("conv4", 384, 8, 256)]
LAYERS += [("conv5", 256, 8, 256)]


def _memory() -> Iterator[Case]:
    yield op("relu", [BIG], 2, lambda x: kernels.relu(x), lambda t, x: t.relu(x))
    yield op("gelu", [BIG], 2, lambda x: kernels.gelu(x), lambda t, x: t.nn.functional.gelu(x))
    yield op("add", [BIG, BIG], 3, lambda a, b: fastnn.Tensor(a) + b, lambda t, a, b: a + b)
    yield op("sum", [BIG], 1, lambda x: fastnn.Tensor(x).sum(), lambda t, x: x.sum())
    yield op("softmax", [BIG], 2, lambda x: kernels.softmax(x, 1), lambda t, x: t.softmax(x, 1))
    cross_entropy = lambda t, x, y: t.nn.functional.cross_entropy(x, y)  # noqa: E731
    yield op("cross entropy, 1000 classes", [(65536, 1000)], 1, F.cross_entropy, cross_entropy, labels=1000)
    norm = lambda x: F.layer_norm(x, (8192,))  # noqa: E731
    yield op("layer norm", [BIG], 2, norm, lambda t, x: t.nn.functional.layer_norm(x, (8192,)))
    batch_norm = lambda x: F.batch_norm(x, None, None, training=True)  # noqa: E731
    yield op("batch norm", [MAPS], 3, batch_norm, lambda t, x: t.nn.functional.batch_norm(x, None, None, training=True))
    yield op("max pool 2x2", [MAPS], 1.25, lambda x: F.max_pool2d(x, 2), lambda t, x: t.nn.functional.max_pool2d(x, 2))
    yield op("dropout", [BIG], 2, lambda x: F.dropout(x, 0.5), lambda t, x: t.nn.functional.dropout(x, 0.5))
    yield optimizer_step("SGD", 1 << 26, 5)
    yield optimizer_step("Adam", 1 << 26, 7)


CASES: list[Case] = [
    *(gemm(n, n, n, precision) for precision in PRECISIONS for n in (1024, 2048, 4096)),
    *(gemm(4096, 4096, 4096, precision, *t) for precision in PRECISIONS for t in ((False, True), (True, False))),
    gemm(256, 1024, 4096, "highest"),
    gemm(1024, 4096, 256, "highest", True),
    *(
        case
        for precision in ("highest", "medium", "bfloat16")
        for name, c, size, k in LAYERS
        for case in conv(f"alexnet-small {name}", 256, c, size, k, 3, 1, precision)
    ),
    *_memory(),
    training_step("lenet5", 128, "highest"),
    *(training_step("alexnet_small", 256, precision) for precision in PRECISIONS),
]
