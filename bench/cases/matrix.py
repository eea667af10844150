"""Matrix products: sizes, transposes, float64, batches, and the fully connected layers of the models."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import functional as F
from fastnn import kernels

from .case import Call, Case, compare


def gemm(m: int, n: int, k: int, trans: str = "nn", dtype: str = "float32") -> Case:
    ta, tb = trans[0] == "t", trans[1] == "t"
    shapes = [(k, m) if ta else (m, k), (n, k) if tb else (k, n), (m, n)]
    name = f"{m}x{n}x{k}" + (f" {trans}" if trans != "nn" else "") + (" float64" if dtype == "float64" else "")

    def turned(a: Any, b: Any) -> tuple[Any, Any]:
        return a.T if ta else a, b.T if tb else b

    def numpy(a: Any, b: Any, c: Any) -> Call:
        a, b = turned(a, b)
        return lambda: np.matmul(a, b, out=c)

    def theirs(t: Any, a: Any, b: Any, c: Any) -> Call:
        a, b = turned(a, b)
        return lambda: t.mm(a, b, out=c)

    return compare(
        "gemm",
        name,
        shapes,
        lambda a, b, c: lambda: kernels.gemm(a, b, trans_a=ta, trans_b=tb, out=c),
        theirs,
        numpy,
        flops=2.0 * m * n * k,
        dtype=dtype,
    )


def batch(b: int, m: int, n: int, k: int) -> Case:
    return compare(
        "gemm",
        f"{b} times {m}x{n}x{k}",
        [(b, m, k), (b, k, n), (b, m, n)],
        lambda x, y, z: lambda: kernels.gemm_batch(x, y, out=z),
        lambda t, x, y, z: lambda: t.bmm(x, y, out=z),
        lambda x, y, z: lambda: np.matmul(x, y, out=z),
        flops=2.0 * b * m * n * k,
    )


def linear(name: str, n: int, inputs: int, outputs: int) -> Case:
    """A fully connected layer with its bias."""
    return compare(
        "linear",
        f"{name} {n}x{inputs} to {outputs}",
        [(n, inputs), (outputs, inputs), (outputs,)],
        lambda x, w, b: lambda: F.linear(x, w, b),
        lambda t, x, w, b: lambda: t.nn.functional.linear(x, w, b),
        lambda x, w, b: lambda: x @ w.T + b,
        flops=2.0 * n * inputs * outputs,
    )


CASES = [
    *(gemm(n, n, n) for n in (16, 32, 64, 128, 256, 512, 1024, 2048)),
    *(gemm(*shape) for shape in ((100, 16, 150), (64, 120, 400), (64, 1024, 4096), (4096, 512, 64), (1, 4096, 4096))),
    *(gemm(n, n, n, trans) for n in (256, 1024) for trans in ("nt", "tn", "tt")),
    *(gemm(1024, 4096, 64, trans) for trans in ("tn",)),
    *(gemm(n, n, n, dtype="float64") for n in (64, 256, 1024)),
    *(gemm(256, 256, 256, trans, "float64") for trans in ("nt", "tn", "tt")),
    batch(64, 64, 64, 64),
    batch(96, 128, 128, 64),
    linear("mlp fc1", 64, 784, 16),
    linear("lenet fc1", 64, 400, 120),
    linear("lenet fc2", 64, 120, 84),
    linear("lenet fc3", 64, 84, 10),
    linear("alexnet-small fc1", 64, 4096, 1024),
    linear("alexnet fc6", 16, 9216, 4096),
    linear("transformer", 512, 768, 3072),
]
