"""What is bound by memory or by calls: activations and their gradients, softmax, losses, norms, dropout, reductions.

Sizes: LeNet's (7,680: a call's cost), a million (in the caches), and LARGE, beyond them. There both sides may write
into an array that they have (``out=``), so that neither is timed while the system hands out fresh pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastnn
from fastnn import functional as F
from fastnn import kernels

from .case import Call, Calls, Case, compare, layouts

SMALL, MIDDLE, LARGE = 7680, 1_000_000, 1 << 24  # LARGE: 64 MiB an array, twice a large L3

# What aten's gradients take after dy and x (or y).
GRADIENTS: dict[str, tuple[Any, ...]] = {
    "relu": (0,),
    "tanh": (),
    "sigmoid": (),
    "gelu": (),
    "silu": (),
    "leaky_relu": (0.01, False),
    "hardtanh": (-1.0, 1.0),
    "softplus": (1.0, 20.0),
}
NUMPY: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def activation(op: str, size: int) -> Case:
    function = getattr(F, op)
    return compare(
        "activation",
        f"{op} of {size}",
        [(size,)],
        lambda x: lambda: function(x),
        lambda t, x: lambda: getattr(t.nn.functional, op)(x),
        (lambda x: lambda: NUMPY[op](x)) if op in NUMPY else None,
        bytes=8.0 * size,
    )


def aten_gradient(t: Any, op: str, dy: Any, x: Any, **out: Any) -> Call:
    if op == "elu":
        return lambda: t.ops.aten.elu_backward(dy, 1.0, 1.0, 1.0, False, x, **out)
    gradient = getattr(t.ops.aten, "threshold_backward" if op == "relu" else f"{op}_backward")
    return lambda: gradient(dy, x, *GRADIENTS[op], **out)


def gradient(op: str, size: int) -> Case:
    function = getattr(kernels, f"{op}_backward")
    return compare(
        "activation",
        f"{op} backward of {size}",
        [(size,), (size,)],
        lambda dy, x: lambda: function(dy, x),
        lambda t, dy, x: aten_gradient(t, op, dy, x),
        bytes=12.0 * size,
    )


def large(op: str, size: int = LARGE) -> Case:
    """Beyond the caches, into an array that is there."""
    function = getattr(kernels, op)

    def theirs(t: Any, x: Any, y: Any) -> Calls:
        if op == "relu":
            return {"clamp_min out": lambda: t.clamp_min(x, 0, out=y), "new": lambda: t.relu(x)}
        if op == "gelu":
            return {"out": lambda: t.ops.aten.gelu(x, out=y), "new": lambda: t.nn.functional.gelu(x)}
        return {"out": lambda: getattr(t, op)(x, out=y), "new": lambda: getattr(t, op)(x)}

    return compare(
        "beyond caches",
        f"{op} of {size}",
        [(size,), (size,)],
        lambda x, y: lambda: function(x, out=y),
        theirs,
        (lambda x, y: lambda: np.maximum(x, 0, out=y)) if op == "relu" else None,
        bytes=8.0 * size,
    )


def large_gradient(op: str, size: int = LARGE) -> Case:
    function = getattr(kernels, f"{op}_backward")

    def theirs(t: Any, dy: Any, x: Any, dx: Any) -> Calls:
        return {"out": aten_gradient(t, op, dy, x, grad_input=dx), "new": aten_gradient(t, op, dy, x)}

    return compare(
        "beyond caches",
        f"{op} backward of {size}",
        [(size,)] * 3,
        lambda dy, x, dx: lambda: function(dy, x, out=dx),
        theirs,
        bytes=12.0 * size,
    )


def softmax(n: int, classes: int) -> Iterator[Case]:
    for op in ("softmax", "log_softmax"):
        function, back = getattr(kernels, op), getattr(kernels, f"{op}_backward")

        def backward(t: Any, dy: Any, y: Any, op: str = op) -> Call:
            aten = getattr(t.ops.aten, f"_{op}_backward_data")
            return lambda: aten(dy, y, 1, t.float32)

        yield compare(
            "softmax",
            f"{op} {n}x{classes} forward",
            [(n, classes)],
            lambda x, function=function: lambda: function(x, 1),
            lambda t, x, op=op: lambda: getattr(t, op)(x, 1),
            bytes=8.0 * n * classes,
        )
        yield compare(
            "softmax",
            f"{op} {n}x{classes} backward",
            [(n, classes)] * 2,
            lambda dy, y, back=back: lambda: back(dy, y, 1),
            backward,
            bytes=12.0 * n * classes,
        )


def softmax_over_channels(n: int, c: int, size: int) -> Case:
    return compare(
        "softmax",
        f"softmax over channels of {n}x{c}x{size}x{size} forward",
        [(n, c, size, size)],
        lambda x: lambda: F.softmax(x, 1),
        lambda t, x: layouts(t, lambda x: lambda: t.softmax(x, 1), x),
        bytes=8.0 * n * c * size * size,
    )


def taped(group: str, name: str, shapes: Any, ours: Any, theirs: Any, **about: Any) -> Case:
    """Forward and backward through the tape; the first array is the leaf; ``theirs`` takes torch.nn.functional too."""

    def make(x: Any, *rest: Any) -> Call:
        leaf = fastnn.tensor(x, requires_grad=True)

        def call() -> None:
            leaf.grad = None
            ours(leaf, *rest).backward()

        return call

    def peer(t: Any, x: Any, *rest: Any) -> Call:
        leaf = x.detach().requires_grad_()

        def call() -> None:
            leaf.grad = None
            theirs(t.nn.functional, leaf, *rest).backward()

        return call

    return compare(group, f"{name} forward and backward", shapes, make, peer, **about)


def cross_entropy(n: int, classes: int) -> Case:
    labels = np.arange(n) % classes
    target = fastnn.tensor(labels)

    def theirs(f: Any, x: Any, cached: list[Any] = []) -> Any:  # noqa: B006  (the labels as a tensor, made once)
        if not cached:
            import torch

            cached.append(torch.from_numpy(labels))
        return f.cross_entropy(x, cached[0])

    name = f"{n}x{classes}"
    return taped(
        "cross_entropy", name, [(n, classes)], lambda x: F.cross_entropy(x, target), theirs, bytes=8.0 * n * classes
    )


def loss(op: str, size: int) -> Case:
    shapes = [(size,), (size,)]
    return taped("loss", f"{op} of {size}", shapes, getattr(F, op), lambda f, x, y: getattr(f, op)(x, y))


def batch_norm(n: int, c: int, size: int) -> Iterator[Case]:
    x_shape, count = (n, c, size, size), n * c * size * size
    name = f"batch_norm {n}x{c}x{size}x{size}"

    def backward(t: Any, dy: Any, x: Any, w: Any, b: Any) -> Calls:
        def make(dy: Any, x: Any) -> Call:
            _, mean, rstd = t.ops.aten.native_batch_norm(x, w, b, None, None, True, 0.1, 1e-5)
            rest = (w, None, None, mean, rstd, True, 1e-5, [True, True, True])
            return lambda: t.ops.aten.native_batch_norm_backward(dy, x, *rest)

        return layouts(t, make, dy, x)

    def ours_backward(dy: Any, x: Any, w: Any, b: Any) -> Call:
        _, mean, var = kernels.batch_norm(x, w, b)
        return lambda: kernels.batch_norm_backward(dy, x, mean, var, w)

    yield compare(
        "norm",
        f"{name} forward",
        [x_shape, (c,), (c,)],
        lambda x, w, b: lambda: kernels.batch_norm(x, w, b),
        lambda t, x, w, b: layouts(
            t, lambda x: lambda: t.nn.functional.batch_norm(x, None, None, w, b, training=True), x
        ),
        bytes=8.0 * count,
    )
    yield compare(
        "norm",
        f"{name} evaluation",
        [x_shape, (c,), (c,)],
        lambda x, w, b: lambda: F.batch_norm(x, w, w * w, w, b),
        lambda t, x, w, b: layouts(t, lambda x: lambda: t.nn.functional.batch_norm(x, w, w * w, w, b), x),
        bytes=8.0 * count,
    )
    yield compare(
        "norm", f"{name} backward", [x_shape, x_shape, (c,), (c,)], ours_backward, backward, bytes=12.0 * count
    )


def layer_norm(n: int, c: int) -> Iterator[Case]:
    def backward(t: Any, dy: Any, x: Any, w: Any, b: Any) -> Call:
        _, mean, rstd = t.ops.aten.native_layer_norm(x, [c], w, b, 1e-5)
        return lambda: t.ops.aten.native_layer_norm_backward(dy, x, [c], mean, rstd, w, b, [True, True, True])

    def ours_backward(dy: Any, x: Any, w: Any, b: Any) -> Call:
        _, mean, rstd = kernels.layer_norm(x, w, b)
        return lambda: kernels.layer_norm_backward(dy, x, mean, rstd, w)

    yield compare(
        "norm",
        f"layer_norm {n}x{c} forward",
        [(n, c), (c,), (c,)],
        lambda x, w, b: lambda: kernels.layer_norm(x, w, b),
        lambda t, x, w, b: lambda: t.nn.functional.layer_norm(x, (c,), w, b),
        bytes=8.0 * n * c,
    )
    yield compare(
        "norm",
        f"layer_norm {n}x{c} backward",
        [(n, c), (n, c), (c,), (c,)],
        ours_backward,
        backward,
        bytes=12.0 * n * c,
    )


def local_response(n: int, c: int, size: int) -> Iterator[Case]:
    """PyTorch makes it of an average pool and arithmetic, and has no gradient of its own: its tape is timed."""
    shape, count = (n, c, size, size), n * c * size * size
    name = f"local_response_norm {n}x{c}x{size}x{size}"

    def both(t: Any, dy: Any, x: Any) -> Call:
        leaf = x.detach().requires_grad_()
        return lambda: t.nn.functional.local_response_norm(leaf, 5).backward(dy)

    def ours_both(dy: Any, x: Any) -> Call:
        leaf = fastnn.tensor(x, requires_grad=True)
        return lambda: F.local_response_norm(leaf, 5).backward(dy)

    yield compare(
        "norm",
        f"{name} forward",
        [shape],
        lambda x: lambda: F.local_response_norm(x, 5),
        lambda t, x: lambda: t.nn.functional.local_response_norm(x, 5),
        bytes=8.0 * count,
    )
    yield compare("norm", f"{name} forward and backward", [shape, shape], ours_both, both)


def dropout(size: int) -> Case:
    return compare(
        "random",
        f"dropout of {size}",
        [(size,)],
        lambda x: lambda: F.dropout(x, 0.5),
        lambda t, x: lambda: t.nn.functional.dropout(x, 0.5),
        bytes=8.0 * size,
    )


def random(op: str, size: int) -> Case:
    return compare(
        "random",
        f"{op} of {size}",
        [(size,)],
        lambda y: lambda: getattr(kernels, op)((size,), seed=1, stream=2, out=y),
        lambda t, y: lambda: getattr(y, f"{op}_")(),
        bytes=4.0 * size,
    )


def reduction(op: str, rows: int, columns: int, dim: int | None = None) -> Case:
    """Tensor methods on both sides, outside the tape."""
    where = "" if dim is None else f" over dim {dim}"
    axis = () if dim is None else (dim,)

    def theirs(t: Any, x: Any) -> Call:
        method = getattr(x, "amax" if op == "max" and axis else op)
        return lambda: method(*axis)

    def ours(x: Any) -> Call:
        method = getattr(fastnn.tensor(x), op)
        return lambda: method(*axis)

    return compare(
        "reduction",
        f"{op} of {rows}x{columns}{where}",
        [(rows, columns)],
        ours,
        theirs,
        lambda x: lambda: getattr(x, op)(dim),
        bytes=4.0 * rows * columns,
    )


def arithmetic(name: str, function: Callable[[Any, Any], Any], *shapes: tuple[int, ...]) -> Case:
    """Operators on both sides' tensors, outside the tape."""
    return compare(
        "arithmetic",
        f"{name} of {' and '.join('x'.join(map(str, s)) for s in shapes)}",
        shapes,
        lambda a, b: (lambda a, b: lambda: function(a, b))(fastnn.tensor(a), fastnn.tensor(b)),
        lambda t, a, b: lambda: function(a, b),
        lambda a, b: lambda: function(a, b),
    )


def pad(mode: str) -> Case:
    shape = (64, 16, 28, 28)
    return compare(
        "shaping",
        f"pad {mode} by 2 of 64x16x28x28",
        [shape],
        lambda x: lambda: F.pad(x, (2, 2, 2, 2), mode),
        lambda t, x: lambda: t.nn.functional.pad(x, (2, 2, 2, 2), mode),
        bytes=4.0 * 64 * 16 * (28 * 28 + 32 * 32),
    )


def cat(rows: int, columns: int) -> Case:
    return compare(
        "shaping",
        f"cat of two {rows}x{columns} over dim 1",
        [(rows, columns)] * 2,
        lambda a, b: lambda: F.cat([a, b], 1),
        lambda t, a, b: lambda: t.cat([a, b], 1),
        lambda a, b: lambda: np.concatenate([a, b], 1),
        bytes=16.0 * rows * columns,
    )


CASES = [
    *(activation(op, size) for op in ("relu", "tanh", "sigmoid", "gelu") for size in (SMALL, MIDDLE)),
    *(activation(op, MIDDLE) for op in ("silu", "elu", "leaky_relu", "hardtanh", "softplus")),
    *(gradient(op, size) for op in ("relu", "tanh", "sigmoid", "gelu") for size in (SMALL, MIDDLE)),
    *(gradient(op, MIDDLE) for op in ("silu", "elu", "leaky_relu", "hardtanh", "softplus")),
    *(large(op) for op in ("relu", "tanh", "sigmoid", "gelu")),
    large("relu", 4 * LARGE),
    *(large_gradient(op) for op in ("relu", "tanh", "sigmoid", "gelu")),
    *softmax(64, 10),
    *softmax(1024, 1000),
    *softmax(16384, 1024),
    softmax_over_channels(8, 21, 64),
    cross_entropy(64, 10),
    cross_entropy(1024, 1000),
    cross_entropy(512, 32000),
    *(loss(op, MIDDLE) for op in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")),
    loss("binary_cross_entropy_with_logits", MIDDLE),
    *batch_norm(64, 64, 32),
    *batch_norm(16, 256, 14),
    *batch_norm(64, 64, 64),
    *layer_norm(1024, 768),
    *layer_norm(32768, 512),
    *local_response(16, 64, 27),
    *(dropout(size) for size in (MIDDLE, LARGE)),
    *(random(op, MIDDLE) for op in ("uniform", "normal")),
    *(reduction(op, 1000, 1000) for op in ("sum", "mean", "max")),
    *(reduction(op, 1000, 1000, dim) for op in ("sum", "max") for dim in (0, 1)),
    reduction("sum", 4096, 4096),
    arithmetic("a + b", lambda a, b: a + b, (1000, 1000), (1000, 1000)),
    arithmetic("a * b", lambda a, b: a * b, (1000, 1000), (1000,)),
    *(pad(mode) for mode in ("constant", "reflect")),
    cat(1000, 1000),
]
