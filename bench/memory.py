"""Peak memory and page faults of a training step beside PyTorch's: `python bench/memory.py [--json FILE] [words]`.

Each side runs in a process of its own. Counted are the most that it held beyond what it held before the first step
(libraries, model and data, which are listed apart), and the page faults of a step once twenty have passed. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

WARM, STEPS = 20, 20
SIDES = (("fastnn", ""), ("torch", "contiguous"), ("torch", "channels_last"))


def status(field: str) -> int:
    """Bytes of a field of this process's status: VmRSS held now, VmHWM the most so far."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) * 1024


def child(title: str, side: str, way: str) -> dict[str, float] | None:
    """Run the steps of one side here."""
    from cases import CASES, torch

    from fastnn import _core, get_num_threads

    if side == "torch" and (t := torch()):
        t.set_num_threads(get_num_threads())
    case = next(case for case in CASES if case.title == title)
    ways = case.ways(side)
    if not ways:
        return None
    step = ways.get(way) or next(iter(ways.values()))
    _core.memory_trim()  # what building the case left free goes back to the system: no side may live on it
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS")
    with suppress(OSError):  # forget the peak of the imports, where the system can
        Path("/proc/self/clear_refs").write_text("5")
    for _ in range(WARM):
        step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEPS):
        step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"before": before, "peak": max(0, status("VmHWM") - before), "faults": faults / STEPS}


def run(words: list[str]) -> list[dict[str, Any]]:
    """A row for each training step whose title holds all words: what ``child`` gives, by side."""
    from cases import CASES

    rows = []
    for case in CASES:
        if case.group != "training step" or not all(word in case.title for word in words):
            continue
        row: dict[str, Any] = {"name": case.name, "sides": {}}
        for side, way in SIDES:
            command = [sys.executable, __file__, "--child", case.title, side, way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            if found := json.loads(done.stdout.splitlines()[-1]):
                row["sides"][f"{side} {way}".strip()] = found
        rows.append(row)
        print(line(row), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    cells = [f"{row['name']:<26}"]
    for side, found in row["sides"].items():
        cells.append(
            f"{side}: {found['peak'] / 2**20:7.1f} MiB beyond {found['before'] / 2**20:4.0f}, "
            f"{found['faults']:8.1f} faults a step"
        )
    return " | ".join(cells)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:5])))
        return
    parser = argparse.ArgumentParser(description="Peak memory and page faults of a training step.")
    parser.add_argument("words", nargs="*", help="only training steps whose 'group: name' holds all of these")
    parser.add_argument("--json", help="write the results to this file too")
    given = parser.parse_args()
    rows = run(given.words)
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
