"""fastnn: compiled-kernel neural networks; NumPy its only dependency, the same bits on any number of threads.

``fastnn.kernels`` are the kernels on plain arrays, ``fastnn.functional`` the ops with gradients, ``fastnn.nn``,
``optim``, ``models``, ``data`` and ``train`` what is built of them (loaded on first use).
"""

import sys as _sys
from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

try:
    from ._core import get_num_threads, set_num_threads
except ImportError as _error:  # FASTNN_ISA asks for what this CPU lacks; a broken installation
    # The command answers every failure in one line, but this package is imported before the command's first one runs.
    if (_sys.argv[:1] == ["-m"] and "fastnn" in _sys.orig_argv) or _sys.argv[0].endswith("/bin/fastnn"):
        raise SystemExit(f"fastnn: error: {_error}") from None
    raise

from . import functional, kernels
from .autograd import Tensor, enable_grad, is_grad_enabled, no_grad, set_grad_enabled, tensor
from .constructors import arange, eye, from_dlpack, from_numpy, full, ones, ones_like, rand, randn, zeros, zeros_like
from .functional.arithmetic import where
from .functional.shaping import cat, stack
from .random import get_rng_state, manual_seed, set_rng_state

if TYPE_CHECKING:
    from . import cuda as cuda
    from . import data as data
    from .config import show_config
    from .cuda.precision import autocast, get_float32_matmul_precision, set_float32_matmul_precision
    from .io import load, save

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "arange",
    "autocast",
    "cat",
    "enable_grad",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "functional",
    "get_float32_matmul_precision",
    "get_num_threads",
    "get_rng_state",
    "is_grad_enabled",
    "kernels",
    "load",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "save",
    "set_float32_matmul_precision",
    "set_grad_enabled",
    "set_num_threads",
    "set_rng_state",
    "show_config",
    "stack",
    "tensor",
    "where",
    "zeros",
    "zeros_like",
]

# Loaded on first use, so that `import fastnn` stays quick: rooms, and names with the room they live in.
_rooms = ("config", "cuda", "data", "io", "models", "nn", "optim", "train", "viz")
_names = {
    "autocast": "cuda.precision",
    "get_float32_matmul_precision": "cuda.precision",
    "load": "io",
    "save": "io",
    "set_float32_matmul_precision": "cuda.precision",
    "show_config": "config",
}


def __getattr__(name: str) -> Any:
    if name in _rooms:
        return _import_module(f".{name}", __name__)
    if name in _names:
        return getattr(_import_module(f".{_names[name]}", __name__), name)
    raise AttributeError(f"module 'fastnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_rooms, *_names})
