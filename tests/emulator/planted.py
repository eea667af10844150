"""Launches of planted.cu, for tests/test_emulator.py; ``python planted.py EXPRESSION [number ...] [key=value ...]``
runs one or, with ``--`` between them, several in a process of their own, for sanitizers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from emulator import build, fake_cupy
from emulator.device import emulated

FILE = Path(__file__).with_suffix(".cu")
EXPRESSIONS = (
    "backwards<true>", "backwards<false>", "backwards_in_warp<true>", "backwards_in_warp<false>", "second_round",
    "barrier_for_half", "barriers_at_two_places", "ended_before_barrier", "shuffle_of_some", "two_operations",
    "write_beyond", "read_beyond", "static_beyond", "dynamic_beyond", "wide_load", "asynchronous<AT_ONCE>",
    "asynchronous<AFTER_WAIT>", "asynchronous<ANOTHERS>", "asynchronous<NEVER_WAITED>", "groups<0>", "groups<2>",
    "groups<4>", "blocks_meet", "blocks_in_order", "multiply_tf32", "multiply_bf16<false>", "multiply_bf16<true>",
    "multiply_by_definition", "misplaced_ldmatrix", "round_to", "reductions<float>", "reductions<double>", "lanes",
)  # fmt: skip


def launch(expression: str, *args: Any, grid: Any = 1, block: Any = 64, shared: int = 0) -> None:
    """NumPy arrays are copied to the device and back; scalars must be NumPy's, as the launcher's casts leave them."""
    loaded = build.load(build.Unit("planted", FILE, EXPRESSIONS))
    there = [fake_cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    sizes = [(s,) if isinstance(s, int) else s for s in (grid, block)]
    emulated().run(loaded, expression, *sizes, tuple(there), shared)
    for a, b in zip(args, there):
        if isinstance(a, np.ndarray):
            a[...] = b.get()


def simple(expression: str, *numbers: int, **options: Any) -> np.ndarray:
    """y of a kernel of x = 1, 2, 3, ... and perhaps ints."""
    x, y = np.arange(1, 65, dtype=np.float32), np.zeros(64, np.float32)
    launch(expression, x, y, *map(np.int32, numbers), **options)
    return y


def lines(kernel: str) -> range:
    """The lines of a kernel in planted.cu."""
    text = FILE.read_text()
    begin = text[: re.search(rf"__global__ void {kernel}\(", text).start()].count("\n") + 1  # type: ignore[union-attr]
    rest = text.split("\n")[begin:]
    return range(begin, begin + 2 + next(i for i, line in enumerate(rest) if line in ("}", "") or "__global__" in line))


if __name__ == "__main__":
    for words in " ".join(sys.argv[1:]).split(" -- "):
        expression, *rest = words.split()
        options = dict(word.split("=") for word in rest if "=" in word)
        print(f"== launch {expression}", file=sys.stderr, flush=True)
        simple(expression, *(int(w) for w in rest if "=" not in w), **{k: int(v) for k, v in options.items()})
