"""``python -m fastnn.cuda``: compile every kernel and print what it takes: registers, shared memory, spills."""

from __future__ import annotations

import argparse
import sys

from . import nvrtc
from .budget import Row, compile_all, problems
from .table import ARCHS, UNITS


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastnn.cuda",
        description="Compile every CUDA kernel (no GPU needed) and print registers per thread, static and dynamic "
        "shared bytes per block, stack and spilled bytes per thread. The exit status is 1 if one is beyond its budget.",
    )
    parser.add_argument("--arch", type=int, nargs="+", default=list(ARCHS), metavar="N", help="75, 80, ... (all)")
    parser.add_argument("--unit", nargs="+", default=list(UNITS), choices=list(UNITS), metavar="NAME", help="(all)")
    parser.add_argument("--kernel", default="", metavar="TEXT", help="only expressions that contain TEXT")
    options = parser.parse_args(arguments)
    try:
        nvrtc.find()
        futures = compile_all(options.unit, options.arch)
        rows = [
            row for future in futures.values() for row in future.result() if options.kernel in row.kernel.expression
        ]
    except (ImportError, nvrtc.CompileError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(table(rows)))
    wrong = [text for row in rows for text in problems(row)]
    print("\n".join([f"NVRTC {nvrtc.version()}, {len(rows)} kernels", *wrong]))
    return 1 if wrong else 0


def table(rows: list[Row]) -> list[str]:
    """A line per kernel; where architectures agree, one line for all of them."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for row in rows:
        used = row.used
        key = (row.unit, row.kernel.expression, row.kernel.threads, used.registers, row.kernel.budget, used.shared)
        groups.setdefault((*key, row.kernel.shared, used.stack, used.spills), []).append(row.arch)
    names = ("unit", "kernel", "threads", "registers", "budget", "static", "dynamic", "stack", "spills", "sm_")
    cells = [[*map(str, key), " ".join(map(str, archs))] for key, archs in sorted(groups.items())]
    widths = [max(map(len, column)) for column in zip(names, *cells)]
    left = (0, 1, 9)
    return [
        "  ".join(
            text.ljust(w) if i in left else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths))
        ).rstrip()
        for line in [names, *cells]
    ]


if __name__ == "__main__":
    sys.exit(main())
