"""What each kernel takes of a GPU, by unit and architecture: registers, shared memory, spills, against its budget.

``compile_all`` is what the compile tests assert on and ``python -m fastnn.cuda`` prints. It needs NVRTC and no GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .device import compiled
from .nvrtc import Resources
from .table import ARCHS, UNITS, Kernel, shared_limit

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Row", "compile_all", "problems"]

REGISTERS_OF_A_BLOCK = 65536


@dataclass(frozen=True)
class Row:
    """One kernel, compiled for one architecture."""

    unit: str
    arch: int
    kernel: Kernel
    used: Resources


def compile_all(units: Iterable[str] = UNITS, archs: Sequence[int] = ARCHS) -> dict[tuple[str, int], Future[list[Row]]]:
    """Start to compile the units for the architectures; a future of rows for each pair.

    On all CPUs, in processes: NVRTC compiles one program of a process at a time.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    jobs = [(unit, arch) for unit in units for arch in archs]
    pool = ProcessPoolExecutor(min(len(jobs), len(os.sched_getaffinity(0))), get_context("spawn"))
    futures = {job: pool.submit(_rows, *job) for job in jobs}
    pool.shutdown(wait=False)
    return futures


def _rows(unit: str, arch: int) -> list[Row]:
    kernels = {e: k for e, k in UNITS[unit].kernels.items() if k.fits(arch)}
    rows = []
    for part in dict.fromkeys(tuple(UNITS[unit].part(e, arch)) for e in kernels):
        resources = compiled(UNITS[unit].file, list(part), arch).resources
        rows += [Row(unit, arch, kernels[e], resources[e]) for e in part]
    return rows


def problems(row: Row) -> list[str]:
    """What is wrong with a compiled kernel: spills, or more registers or shared memory than it may have."""
    found = []
    kernel, used = row.kernel, row.used
    if used.spills:
        found.append(f"spills {used.spills} bytes")
    if used.registers > kernel.budget:
        found.append(f"{used.registers} registers a thread, its budget is {kernel.budget}")
    taken = -(-used.registers // 8) * 8 * -(-kernel.threads // 128) * 128  # they are given to warps in fours, by eights
    if taken > REGISTERS_OF_A_BLOCK:
        found.append(f"{used.registers} registers for {kernel.threads} threads: no block can run")
    if used.shared + kernel.shared > shared_limit(row.arch):
        found.append(
            f"{used.shared} + {kernel.shared} bytes of shared memory, a block has at most {shared_limit(row.arch)}"
        )
    return [f"{row.unit}: {kernel.expression} on sm_{row.arch}: {text}" for text in found]
