"""Paired ratios against a peer: `python bench/compare.py [--peer torch] [--threads 2] [--json FILE] [words of a case]`.

The two sides take turns, with a gap of 25 ms after the peer's turn (PyTorch's threads spin on and would slow whoever
comes next). A turn repeats the call for about 20 ms and counts its mean. Printed: the best time of each side, and the
median and quartiles of the ratios peer / fastnn, turn by turn: above 1, fastnn is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from cases import CASES, Call, Case, torch

import fastnn
from fastnn import _core

TURN = 0.02  # seconds
GAP = 0.025


def turn(function: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def measure(case: Case, peer: str, turns: int) -> dict[str, Any] | None:
    sides = [case.make("fastnn"), case.make(peer)]
    if None in sides:
        return None
    repeats = []
    for function in sides:
        for _ in range(3):
            function()
        repeats.append(max(1, int(TURN / max(turn(function, 1), 1e-7))))
        time.sleep(GAP)
    pairs = []
    for _ in range(turns):
        pairs.append([turn(function, n) for function, n in zip(sides, repeats)])
        time.sleep(GAP)
    low, median, high = statistics.quantiles([theirs / ours for ours, theirs in pairs], n=4)
    best = [min(times) for times in zip(*pairs)]
    return {
        "group": case.group,
        "name": case.name,
        "fastnn_s": best[0],
        f"{peer}_s": best[1],
        "ratio": median,
        "quartiles": [low, high],
        "flops": case.flops,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Paired ratios of speed against a peer.")
    parser.add_argument("words", nargs="*", help="time only cases whose name holds all of these")
    parser.add_argument("--peer", default="torch", choices=["torch", "numpy"])
    parser.add_argument("--threads", type=int, help="threads for fastnn and PyTorch (default: all CPUs)")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--json", help="write the results to this file too")
    options = parser.parse_args()
    if options.peer == "torch" and torch() is None:
        parser.exit(1, "PyTorch is not installed: pip install torch\n")
    if options.threads:
        fastnn.set_num_threads(options.threads)
        if t := torch():
            t.set_num_threads(options.threads)
    rows = []
    print(f"{fastnn.get_num_threads()} threads, {_core.isa()}; ratio: {options.peer} / fastnn, median [quartiles]")
    print(f"{'case':<46} {'fastnn':>10} {options.peer:>10} {'ratio':>7} {'':<13} GFLOP/s")
    for case in CASES:
        title = f"{case.group}: {case.name}"
        row = measure(case, options.peer, options.turns) if all(word in title for word in options.words) else None
        if row is None:
            continue
        rows.append(row)
        low, high = row["quartiles"]
        times = f"{row['fastnn_s'] * 1e6:8.1f}us {row[options.peer + '_s'] * 1e6:8.1f}us"
        speed = f"{case.flops / row['fastnn_s'] / 1e9:7.1f}" if case.flops else ""
        print(f"{title:<46} {times} {row['ratio']:7.2f} [{low:.2f} {high:.2f}] {speed}", flush=True)
    if options.json:
        result = {"threads": fastnn.get_num_threads(), "isa": _core.isa(), "peer": options.peer, "rows": rows}
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
