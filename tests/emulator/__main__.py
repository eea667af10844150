"""Builds every unit of the package's table for the emulator: ``PYTHONPATH=tests python -m emulator [arch]``."""

from __future__ import annotations

import sys
import time

from . import build
from .device import all_units

begin = time.perf_counter()
units = all_units(int(sys.argv[1]) if len(sys.argv) > 1 else 90)
build.runtime()
for unit, future in [(unit, build.start(unit)) for unit in units]:
    print(
        f"{time.perf_counter() - begin:6.1f} s  {future.result().name}  ({len(unit.expressions)} kernels)", flush=True
    )
