"""The emulated device: what fastnn.cuda takes for a GPU once ``fastnn.cuda.device.install`` has been told of it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from fastnn.cuda.device import Device
from fastnn.cuda.sources import folder, signature
from fastnn.cuda.table import UNITS, shared_limit

from . import build, fake_cupy

ORDERS = ("forward", "reverse", "random")
DEFAULT_STATIC = 48 * 1024


def unit_of(name: str, expression: str, arch: int) -> build.Unit:
    """What is compiled together with a kernel of the package's table."""
    part = UNITS[name].part(expression, arch)
    kind = "double" if "double" in expression else "float"
    return build.Unit(f"{name}-{kind}", folder() / "cuda" / UNITS[name].file, tuple(part))


def all_units(arch: int) -> list[build.Unit]:
    found = {
        unit_of(name, e, arch): None for name, unit in UNITS.items() for e, k in unit.kernels.items() if k.fits(arch)
    }
    return list(found)


class EmulatedDevice(Device):
    """A device whose kernels g++ compiled. Its ``schedule`` says in which order threads and blocks take turns."""

    xp = fake_cupy
    array_type = fake_cupy.ndarray
    name = "emulated"
    multiprocessors = 4

    def __init__(self, arch: int = 90) -> None:
        super().__init__()
        self.arch = arch
        self.shared_limit = shared_limit(arch)
        self.threads, self.blocks, self.seed = "forward", "forward", 0
        self.launches = 0

    @contextmanager
    def schedule(self, threads: str = "forward", blocks: str = "forward", seed: int = 0) -> Iterator[None]:
        """Launches within take turns so: ``threads`` forward, reverse or random (by ``seed``), ``blocks`` forward or
        reverse."""
        before = self.threads, self.blocks, self.seed
        self.threads, self.blocks, self.seed = threads, blocks, seed
        try:
            yield
        finally:
            self.threads, self.blocks, self.seed = before

    def load(self, unit: str, expression: str) -> Any:
        loaded = build.load(unit_of(unit, expression, self.arch))
        expected = "".join(described(p) for p in signature(UNITS[unit].file, expression))
        if loaded.signatures[expression] != expected:
            raise TypeError(
                f"{unit}: {expression}: the host reads the parameters as ({expected}), the compiler has "
                f"({loaded.signatures[expression]})"
            )

        def run(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], shared: int) -> None:
            self.run(loaded, expression, grid, block, args, shared)

        return run

    def run(
        self,
        loaded: build.Loaded,
        expression: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Any,
        shared: int,
    ) -> None:
        """A launch as CuPy makes it: arguments are device arrays, or NumPy scalars and 0-d arrays passed by value."""
        values: list[Any] = []
        arrays = []
        for x, kind in zip(args, loaded.signatures[expression].split(",")):
            if isinstance(x, fake_cupy.ndarray):
                values.append(ctypes.c_void_p(x.data.ptr))
                arrays.append(x)
            elif isinstance(x, (np.generic, np.ndarray)) and x.ndim == 0:
                fits = x.nbytes == 8 if kind.endswith("*") else kind in (x.dtype.name, f"struct({x.nbytes})")
                if not fits:
                    raise TypeError(f"{expression}: passed {x.dtype} where the kernel takes {kind}")
                values.append(ctypes.create_string_buffer(x.tobytes(), x.nbytes))
            else:
                raise TypeError(f"{expression}: CuPy would not pass {type(x).__name__} as {kind} unchanged")
        if len(args) != loaded.signatures[expression].count(","):
            raise TypeError(f"{expression} takes {loaded.signatures[expression]} got {len(args)} arguments")
        sizes = [build.Dim(*(*s, 1, 1)[:3]) for s in (grid, block)]
        orders = ORDERS.index(self.threads), ORDERS.index(self.blocks)
        launch = build.Launch(*sizes, shared, *orders, self.seed)
        loaded.run(expression, launch, [ctypes.addressof(v) for v in values])
        self.launches += 1
        for x, kind in zip(args, loaded.signatures[expression].split(",")):
            if isinstance(x, fake_cupy.ndarray) and not x._memory.intact():
                raise build.LaunchError(f"{expression}: a write beyond an array of {x._memory.size} bytes ({kind})")


def described(parameter: Any) -> str:
    """A parameter in the words of EmulatorKernel::signature (device.h)."""
    if parameter.dtype.fields:
        return f"struct({parameter.dtype.itemsize}),"
    const = "const " if parameter.const and parameter.pointer else ""
    return f"{const}{parameter.dtype.name}{'*' if parameter.pointer else ''},"


@cache
def emulated() -> EmulatedDevice:
    """The one device of a test session."""
    return EmulatedDevice()
