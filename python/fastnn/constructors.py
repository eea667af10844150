"""Functions that make new tensors, under PyTorch's names: zeros, ones, full, arange, eye, rand, randn...

Random ones take a stream of ``fastnn.random`` each. ``fastnn.tensor`` is in autograd.py.
"""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from . import kernels
from .autograd import Tensor
from .kernels._backend import device_of, empty, here, moved, on
from .kernels._check import plain, real, shown
from .random import next_stream

__all__ = [
    "arange",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "zeros",
    "zeros_like",
]


_DLPACK_DEVICES = (1, 2)  # main memory, CUDA


def _shape(op: str, size: tuple[Any, ...]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` alike."""
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    try:
        shape = tuple(index(n) for n in size)
    except TypeError:
        raise TypeError(f"{op}: sizes must be ints, got {size}") from None
    if any(n < 0 for n in shape):
        raise ValueError(f"{op}: negative size in {shape}")
    return shape


def _filled(op: str, size: tuple[Any, ...], value: Any, dtype: Any, device: str | None, requires_grad: bool) -> Tensor:
    there = here(op, device)
    try:
        kind = np.dtype(np.float32 if dtype is None else dtype)
    except TypeError:
        raise TypeError(f"{op}: dtype must be a float, integer or boolean one, got {shown(dtype)}") from None
    if kind.kind not in "fiub":
        raise TypeError(f"{op}: dtype must be a float, integer or boolean one, got {kind}")
    y = empty(_shape(op, size), there, kind)
    try:
        with on(y):
            y[...] = value
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{op}: cannot fill an array of {kind} with {shown(value)}") from None
    return Tensor(y, requires_grad)


def zeros(*size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros, float32 unless ``dtype`` says otherwise: ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    return _filled("zeros", size, 0, dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones, float32 unless ``dtype`` says otherwise."""
    return _filled("ones", size, 1, dtype, device, requires_grad)


def full(
    size: Any, fill_value: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of one number; without ``dtype``, bool, int64 or float32 as the number is."""
    if dtype is None:
        dtype = np.bool_ if isinstance(fill_value, bool) else np.int64 if isinstance(fill_value, int) else np.float32
    return _filled("full", (size,), fill_value, dtype, device, requires_grad)


def zeros_like(input: Tensor, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the shape and, if not said, the dtype and on the device of ``input``."""
    return zeros(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def ones_like(input: Tensor, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Ones of the shape and, if not said, the dtype and on the device of ``input``."""
    return ones(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """``start``, ``start + step``, ... below ``end``; ``arange(end)`` starts at 0. int64 for ints, else float32."""
    there = here("arange", device)
    if end is None:
        start, end = 0, start
    length = (real("arange", "end", end) - real("arange", "start", start)) / (real("arange", "step", step) or 1)
    if not abs(length) < 2**48:
        raise ValueError(f"arange: {length:g} numbers from {start} to {end} by {step} are too many")
    if step == 0 or (end - start) * step < 0:
        raise ValueError(f"arange: step {step} does not lead from {start} to {end}")
    if dtype is None:
        dtype = np.int64 if all(isinstance(n, int) for n in (start, end, step)) else np.float32
    return Tensor(moved(np.arange(start, end, step).astype(dtype, copy=False), there), requires_grad)


def eye(
    n: int, m: int | None = None, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Ones on the diagonal of an (n, m) tensor of zeros; ``m`` defaults to ``n``."""
    there = here("eye", device)
    rows, columns = _shape("eye", (n, n if m is None else m))
    return Tensor(moved(np.eye(rows, columns, dtype=np.float32 if dtype is None else dtype), there), requires_grad)


def rand(*size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Numbers uniform in [0, 1), float32 or float64."""
    here("rand", device)  # raises before a stream is drawn
    shape, (seed, stream) = _shape("rand", size), next_stream()
    return Tensor(
        kernels.uniform(shape, seed=seed, stream=stream, dtype=dtype or np.float32, device=device), requires_grad
    )


def randn(*size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Numbers of the standard normal distribution, float32 or float64."""
    here("randn", device)  # raises before a stream is drawn
    shape, (seed, stream) = _shape("randn", size), next_stream()
    return Tensor(
        kernels.normal(shape, seed=seed, stream=stream, dtype=dtype or np.float32, device=device), requires_grad
    )


def from_numpy(array: Any) -> Tensor:
    """A tensor on the memory of a NumPy array: a change of one shows in the other. ``fastnn.tensor`` copies."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a NumPy array, got {type(array).__name__}; use fastnn.tensor(...)")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"from_numpy: cannot hold {array.dtype}; use numbers or booleans")
    return Tensor(plain("from_numpy", "array", array))


def from_dlpack(data: Any) -> Tensor:
    """A tensor on the memory of another library's array or tensor, on the CPU or a GPU, without a copy.

    ``data`` has ``__dlpack__`` and ``__dlpack_device__``, as NumPy's and CuPy's arrays and PyTorch's tensors do. A
    change of one shows in the other. The other way: ``torch.from_dlpack(tensor)``, ``numpy.from_dlpack(tensor)``.
    """
    if isinstance(data, Tensor):
        return data.detach()
    if isinstance(data, np.ndarray) or device_of(data) is not None:
        array = data
    elif not hasattr(data, "__dlpack__") or not hasattr(data, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: expected an array or tensor with __dlpack__, got {type(data).__name__}")
    else:
        kind, number = data.__dlpack_device__()
        if kind not in _DLPACK_DEVICES:
            raise ValueError(f"from_dlpack: the data is on a device of DLPack's kind {kind}; 1 (CPU) and 2 (CUDA) work")
        gpu = device_of(here("from_dlpack", "cpu" if kind == 1 else f"cuda:{number}"))
        array = np.from_dlpack(data) if gpu is None else gpu.xp.from_dlpack(data)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"from_dlpack: cannot hold {array.dtype}; use numbers or booleans")
    return Tensor(plain("from_dlpack", "data", array))
