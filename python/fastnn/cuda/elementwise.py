"""Activations and their gradients: host functions of csrc/cuda/elementwise.cu.

A host function has the arguments of the CPU's kernel, in its order, after ``gpu``; it chooses the name expression, grid
and block, and launches. Arrays are checked before (kernels/, ``@kernel``) and after (``gpu.launch``): here is no check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .launch import blocks, ctype, kernel

if TYPE_CHECKING:
    from .device import Device

THREADS = 256


def _map(gpu: Device, formula: str, x: Any, y: Any, a: float = 0.0, b: float = 0.0) -> None:
    t = ctype(x.dtype)
    grid = blocks(x.size, THREADS, 16 // x.itemsize)
    gpu.launch("elementwise", f"map<{t}, {formula}_of<{t}>>", grid, THREADS, x, y, x.size, a, b)


def _gradient(gpu: Device, formula: str, dy: Any, x: Any, dx: Any, a: float = 0.0, b: float = 0.0) -> None:
    t = ctype(x.dtype)
    grid = blocks(x.size, THREADS, 16 // x.itemsize)
    gpu.launch("elementwise", f"map_gradient<{t}, {formula}_gradient<{t}>>", grid, THREADS, dy, x, dx, x.size, a, b)


@kernel
def relu(gpu: Device, x: Any, y: Any) -> None:
    _map(gpu, "relu", x, y)


@kernel
def relu_backward(gpu: Device, dy: Any, y: Any, dx: Any) -> None:
    _gradient(gpu, "relu", dy, y, dx)


@kernel
def leaky_relu(gpu: Device, x: Any, y: Any, negative_slope: float) -> None:
    _map(gpu, "leaky_relu", x, y, negative_slope)


@kernel
def leaky_relu_backward(gpu: Device, dy: Any, x: Any, dx: Any, negative_slope: float) -> None:
    _gradient(gpu, "leaky_relu", dy, x, dx, negative_slope)


@kernel
def hardtanh(gpu: Device, x: Any, y: Any, min_val: float, max_val: float) -> None:
    _map(gpu, "hardtanh", x, y, min_val, max_val)


@kernel
def hardtanh_backward(gpu: Device, dy: Any, x: Any, dx: Any, min_val: float, max_val: float) -> None:
    _gradient(gpu, "hardtanh", dy, x, dx, min_val, max_val)


@kernel
def elu(gpu: Device, x: Any, y: Any, alpha: float, scale: float) -> None:
    _map(gpu, "elu", x, y, alpha, scale)


@kernel
def elu_backward(gpu: Device, dy: Any, x: Any, dx: Any, alpha: float, scale: float) -> None:
    _gradient(gpu, "elu", dy, x, dx, alpha, scale)


@kernel
def softplus(gpu: Device, x: Any, y: Any, beta: float, threshold: float) -> None:
    _map(gpu, "softplus", x, y, beta, threshold)


@kernel
def softplus_backward(gpu: Device, dy: Any, x: Any, dx: Any, beta: float, threshold: float) -> None:
    _gradient(gpu, "softplus", dy, x, dx, beta, threshold)


@kernel
def sigmoid(gpu: Device, x: Any, y: Any) -> None:
    _map(gpu, "sigmoid", x, y)


@kernel
def sigmoid_backward(gpu: Device, dy: Any, y: Any, dx: Any) -> None:
    _gradient(gpu, "sigmoid", dy, y, dx)


@kernel
def tanh(gpu: Device, x: Any, y: Any) -> None:
    _map(gpu, "tanh", x, y)


@kernel
def tanh_backward(gpu: Device, dy: Any, y: Any, dx: Any) -> None:
    _gradient(gpu, "tanh", dy, y, dx)


@kernel
def silu(gpu: Device, x: Any, y: Any) -> None:
    _map(gpu, "silu", x, y)


@kernel
def silu_backward(gpu: Device, dy: Any, x: Any, dx: Any) -> None:
    _gradient(gpu, "silu", dy, x, dx)


@kernel
def gelu(gpu: Device, x: Any, y: Any) -> None:
    _map(gpu, "gelu", x, y)


@kernel
def gelu_backward(gpu: Device, dy: Any, x: Any, dx: Any) -> None:
    _gradient(gpu, "gelu", dy, x, dx)


@kernel
def gelu_tanh(gpu: Device, x: Any, y: Any) -> None:
    _map(gpu, "gelu_tanh", x, y)


@kernel
def gelu_tanh_backward(gpu: Device, dy: Any, x: Any, dx: Any) -> None:
    _gradient(gpu, "gelu_tanh", dy, x, dx)
