"""Paired ratios against the peers: `python bench/compare.py [--threads 2] [--isa avx2] [--peer numpy] [words]`.

Sides take turns (measure.py). Printed: the best time of each side, the median and quartiles of the ratios
peer / fastnn, turn by turn (above 1, fastnn is faster), fastnn's speed and its share of the peak measured in the same
run. Last comes the geometric mean of each group's medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# What holds the peers to an instruction set: PyTorch's own kernels, MKL, oneDNN, and NumPy's OpenBLAS.
PEER_LIMITS = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "baseline": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}
# Measured: MKL heeds MKL_ENABLE_INSTRUCTIONS on Intel's CPUs only. On AMD's its sgemm keeps to AVX2 (92 GFLOP/s) unless
# it is told to compute as on any CPU (27 GFLOP/s, SSE2): the one way to hold it to baseline there.
MKL_ELSEWHERE = {"baseline": {"MKL_CBWR": "COMPATIBLE"}}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Paired ratios of speed against the peers.")
    parser.add_argument("words", nargs="*", help="time only cases whose 'group: name' holds all of these")
    parser.add_argument("--group", action="append", help="time only these groups; may be repeated")
    parser.add_argument("--skip", action="append", default=[], help="leave out this group; may be repeated")
    parser.add_argument("--peer", action="append", choices=["torch", "numpy"], help="default: torch; may be repeated")
    parser.add_argument("--threads", type=int, help="threads for all sides (default: all CPUs)")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--minutes", type=float, help="take about so long: fewer turns, three at least")
    parser.add_argument("--isa", choices=list(PEER_LIMITS), help="hold fastnn and PyTorch to this instruction set")
    parser.add_argument("--hog", action="store_true", help="beside one busy process")
    parser.add_argument("--json", help="write the results to this file too")
    parser.add_argument("--list", action="store_true", help="only list the cases")
    given = parser.parse_args()
    given.peer = given.peer or ["torch"]
    if given.turns < 1 or (given.threads or 1) < 1:
        parser.error("--turns and --threads must be at least 1")
    return given


def restrict(isa: str | None, threads: int | None) -> None:
    """The environment that the sides read when they are imported."""
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")  # NumPy's BLAS: 2^20 cycles of spinning, not 2^26
    if isa:
        os.environ.update(PEER_LIMITS[isa], FASTNN_ISA=isa)
        if "GenuineIntel" not in Path("/proc/cpuinfo").read_text():
            os.environ.update(MKL_ELSEWHERE.get(isa, {}))
    if threads:
        os.environ["OPENBLAS_NUM_THREADS"] = str(threads)


def heading(peers: list[str]) -> str:
    return f"{'case':<54} {'fastnn':>11} " + " ".join(f"{peer:>11}  ratio".ljust(33) for peer in peers)


def line(row: dict[str, Any], peers: list[str]) -> str:
    """A row of the table; what a peer's best way was (beside its others), and what was wrong, stand at its end."""
    ours = row["seconds"]["fastnn"]
    cells = [f"{row['group'] + ': ' + row['name']:<54} {ours * 1e6:9.1f}us"]
    for peer in peers:
        if peer in row["ratio"]:
            low, high = row["quartiles"][peer]
            text = f"{row['seconds'][peer] * 1e6:9.1f}us {row['ratio'][peer]:6.2f} [{low:.2f} {high:.2f}]"
        else:
            text = ""
        cells.append(text.ljust(33))
    speed = f"{row['flops'] / ours / 1e9:6.1f} GFLOP/s" if row["flops"] else ""
    cells.append((speed or (f"{row['bytes'] / ours / 1e9:6.1f} GB/s" if row["bytes"] else "")).ljust(14))
    cells.append(f"{row['share']:5.0%}" if row["share"] is not None else " " * 5)
    for peer, tried in row["ways"].items():
        (best, _), *others = tried.items()
        rest = ", ".join(f"{name} {seconds * 1e6:.0f}us, {seconds / ours:.2f}" for name, seconds in others)
        cells.append(f"{peer}: {best} ({rest})")
    cells += [f"{peer}: {bad} turns in a bad state left out" for peer, bad in row["bad_turns"].items() if bad]
    cells += ["CONTENDED"] if row["contended"] else []
    return " ".join(cells).rstrip()


def means(rows: list[dict[str, Any]], peer: str, default: bool = False) -> dict[str, float]:
    """The geometric mean of the medians of each group, and of all rows.

    ``default``: beside the peer's default way, the layout and memory that fastnn has too, from the trials.
    """
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if peer in row["ratio"]:
            tried = row["ways"].get(peer, {}) if default else {}
            seconds = tried.get("contiguous") or tried.get("new")
            ratio = seconds / row["seconds"]["fastnn"] if seconds else row["ratio"][peer]
            ratios.setdefault(row["group"], []).append(ratio)
    if len(ratios) > 1:
        ratios["all rows"] = [ratio for group in ratios.values() for ratio in group]
    return {group: statistics.geometric_mean(values) for group, values in ratios.items()}


def wanted(case: Any, given: argparse.Namespace) -> bool:
    named = all(word in case.title for word in given.words) and case.group not in given.skip
    return named and (not given.group or case.group in given.group)


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Measure and print; what --json writes."""
    from cases import CASES
    from measure import BAD, Machine, measure

    import fastnn
    from fastnn import _core

    if given.threads:
        fastnn.set_num_threads(given.threads)
    machine = Machine()
    peaks = machine.peaks()
    memory = ", ".join(f"{name} {speed / 1e9:.1f}" for name, speed in peaks["memory"].items())
    print(f"{machine.threads} threads, {_core.isa()}; ratio: peer / fastnn, median [quartiles]; share of the peak")
    print(f"peaks: FMA {machine.one / 1e9:.0f} GFLOP/s one thread, {machine.all / 1e9:.0f} all; memory GB/s: {memory}")
    print(heading(given.peer))
    end = time.perf_counter() + 60 * (given.minutes or float("inf"))
    rows = []
    bad = float("inf") if given.hog else BAD  # beside a busy process no state is good
    cases = [case for case in CASES if wanted(case, given)]
    for done, case in enumerate(cases):
        limit = (end - time.perf_counter()) / (len(cases) - done)  # what quick cases leave, slow ones may use
        if row := measure(case, machine, given.peer, given.turns, limit, bad):
            row["ways"] = {} if given.hog else row["ways"]  # trials beside a busy process say little
            rows.append(row)
            print(line(row, given.peer), flush=True)
    for peer in given.peer:
        for default in (False, True):
            found = means(rows, peer, default)
            if not default or found != means(rows, peer):
                text = ", ".join(f"{group} {mean:.2f}" for group, mean in found.items())
                print(f"geometric means, {peer}{' in its default layout' if default else ''} / fastnn: {text}")
    return {"threads": machine.threads, "isa": _core.isa(), "peers": given.peer, **machine.peaks(), "rows": rows}


def main() -> None:
    given = options()
    restrict(given.isa, given.threads)
    from cases import CASES, torch

    if given.list:
        print("\n".join(case.title for case in CASES if wanted(case, given)))
        return
    if "torch" in given.peer and torch() is None:
        raise SystemExit("PyTorch is not installed: pip install torch")
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if given.hog else None
    try:
        result = run(given)
    finally:
        if hog:
            hog.kill()
            hog.wait()
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
