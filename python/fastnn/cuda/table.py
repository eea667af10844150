"""Every CUDA kernel that there is: units, each a file of csrc/cuda with the name expressions that are compiled of it.

One row per family of expressions. Host functions launch only what stands here; the compile tests compile all of it for
every architecture and hold it to its budget; the emulator builds it. Next: launch.py, tests/test_cuda_compile.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

__all__ = ["ARCHS", "UNITS", "Kernel", "Unit", "each", "shared_limit"]

ARCHS = (75, 80, 86, 89, 90, 100, 120)
"""The architectures that every kernel is compiled for before a release; others of the same generations work alike."""

FLOATS = ("float", "double")


@dataclass(frozen=True)
class Kernel:
    """One instantiation: what its launches may ask for, and what it may cost."""

    expression: str
    threads: int = 256  # the most per block
    shared: int = 0  # the most bytes of dynamic shared memory; beyond 48 KiB the launcher opts in
    arch: int = 75  # the oldest architecture that has the instructions
    registers: int = 0  # the most per thread; 0: as many as let one block of ``threads`` run

    @property
    def budget(self) -> int:
        """Registers per thread that the compile tests allow."""
        return self.registers or min(255, 65536 // self.threads)

    def fits(self, arch: int) -> bool:
        """Whether a device of this architecture can run it."""
        return arch >= self.arch and self.shared <= shared_limit(arch)


@dataclass(frozen=True)
class Unit:
    """A file of csrc/cuda and its kernels."""

    file: str
    kernels: dict[str, Kernel] = field(default_factory=dict)

    def part(self, expression: str, arch: int) -> list[str]:
        """The expressions that are compiled together with this one: all of float, or all of double."""
        wanted = "double" in expression
        return [e for e, kernel in self.kernels.items() if kernel.fits(arch) and ("double" in e) == wanted]


def shared_limit(arch: int) -> int:
    """Bytes of shared memory that a block may have, static and dynamic together."""
    known = {75: 64, 80: 163, 86: 99, 87: 163, 88: 99, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99, 121: 99}
    return 1024 * known.get(arch, 99 if arch > 75 else 64)


def each(pattern: str, **choices: Any) -> list[Kernel]:
    """A kernel for every combination: ``each("relu<{T}>", T=FLOATS, threads=128)``. Lists and tuples are the choices
    that the pattern names; the other keywords are Kernel's."""
    names = [name for name, values in choices.items() if f"{{{name}}}" in pattern]
    rest = {name: value for name, value in choices.items() if name not in names}
    return [
        Kernel(pattern.format(**dict(zip(names, values))), **rest)
        for values in product(*(choices[name] for name in names))
    ]


def _unit(file: str, *families: Iterable[Kernel]) -> Unit:
    return Unit(file, {kernel.expression: kernel for family in families for kernel in family})


ACTIVATIONS: Sequence[str] = (
    "relu",
    "leaky_relu",
    "hardtanh",
    "elu",
    "softplus",
    "sigmoid",
    "tanh",
    "silu",
    "gelu",
    "gelu_tanh",
)

UNITS: dict[str, Unit] = {}

# -- elementwise ------------------------------------------------------------------------------------------------------
UNITS["elementwise"] = _unit(
    "elementwise.cu",
    each("map<{T}, {f}_of<{T}>>", T=FLOATS, f=ACTIVATIONS),
    each("map_gradient<{T}, {f}_gradient<{T}>>", T=FLOATS, f=ACTIVATIONS),
)

# -- arithmetic -------------------------------------------------------------------------------------------------------

# -- conv -------------------------------------------------------------------------------------------------------------

# -- cross_entropy ----------------------------------------------------------------------------------------------------

# -- gemm -------------------------------------------------------------------------------------------------------------

# -- norm -------------------------------------------------------------------------------------------------------------

# -- optim ------------------------------------------------------------------------------------------------------------

# -- pad --------------------------------------------------------------------------------------------------------------

# -- pool -------------------------------------------------------------------------------------------------------------

# -- random -----------------------------------------------------------------------------------------------------------

# -- reduce -----------------------------------------------------------------------------------------------------------

# -- softmax ----------------------------------------------------------------------------------------------------------
