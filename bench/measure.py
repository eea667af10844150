"""How a case is timed: sides in turns, with a pause after a peer's turn, and ratios turn by turn.

PyTorch's threads (and those of NumPy's BLAS) spin on after an op and would slow whoever comes next: GAP. A turn repeats
the call for about TURN seconds and counts its mean, after a quarter of that uncounted: whoever follows a pause finds
CPUs that slept and caches full of others' data. Of a side's several ways (memory formats, ``out=``) the fastest in a
short trial is timed. The machine's peaks are measured between the cases: whoever else works on it shows in them.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from cases import Call, Case, torch

from fastnn import get_num_threads
from fastnn.kernels.peak import fma_peak, fma_speeds, memory_peak

TURN = 0.02  # seconds
GAP = 0.025
BAD = 3  # a peer's turn this many times its best is not its good state: PyTorch's small nets are bistable
SHARE = 0.9  # of the threads' peak is there while nobody else works: two threads do 1.8 times what one does
CHECKS = 5  # looks at it during a case, whose median counts
BEYOND = 1 << 26  # bytes that a call moves, from which on it is measured against the bandwidth of memory


class Machine:
    """The peaks of this machine, the best seen so far: what shares refer to."""

    def __init__(self) -> None:
        self.threads = get_num_threads()
        if t := torch():  # which counts CPUs that a quota or an affinity takes away
            t.set_num_threads(self.threads)
        self.one = self.all = 0.0
        self.double = fma_peak(self.threads, "float64")
        self.memory = memory_peak()
        self.idle_cpus()

    def idle_cpus(self) -> float:
        """Measure again: how many times one thread's peak all threads reach on average; less where others work."""
        one, speeds = fma_peak(1), fma_speeds(self.threads)
        self.one, self.all = max(self.one, one), max(self.all, *speeds)
        return statistics.harmonic_mean(speeds) / (self.one if self.threads == 1 else one)

    def share(self, case: Case, seconds: float) -> float | None:
        """Of the peak that bounds the case: multiply-adds, or memory where the arrays are beyond the caches."""
        if case.flops:
            return case.flops / seconds / (self.double if case.dtype == "float64" else self.all)
        if case.bytes >= BEYOND:
            return case.bytes / seconds / max(self.memory.values())
        return None

    def peaks(self) -> dict[str, Any]:
        return {"fma_one": self.one, "fma_all": self.all, "fma_all_float64": self.double, "memory": self.memory}


def turn(function: Call, repeats: int) -> float:
    for _ in range(repeats // 4):
        function()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def prepare(function: Call) -> tuple[int, float]:
    """How often to call it in a turn, and its time in a first turn, after warming up."""
    for _ in range(2):
        function()
    repeats = max(1, int(TURN / max(turn(function, 1), 1e-7)))
    seconds = turn(function, repeats)
    time.sleep(GAP)
    return max(1, int(TURN / max(seconds, 1e-7))), seconds


def fastest(ways: dict[str, Call]) -> tuple[Call, int, dict[str, float]]:
    """The way with the best of two short trials, how often to call it in a turn, and the times of all, best first."""
    tried = {}
    for name, function in ways.items():
        repeats, seconds = prepare(function)
        if len(ways) > 1:
            seconds = min(seconds, turn(function, repeats))
            time.sleep(GAP)
        tried[name] = (seconds, repeats)
    order = sorted(tried, key=lambda name: tried[name])
    return ways[order[0]], tried[order[0]][1], {name: tried[name][0] for name in order}


def measure(
    case: Case, machine: Machine, peers: list[str], turns: int, limit: float, bad: float = BAD
) -> dict[str, Any] | None:
    """Best time of each side, ratios peer / fastnn; None where fastnn or every peer lacks the case.

    So many turns, but after ``limit`` seconds (choosing the ways included) no more than three.
    """
    end = time.perf_counter() + limit
    ways = {side: case.ways(side) for side in ("fastnn", *peers)}
    if not ways["fastnn"] or not any(ways[peer] for peer in peers):
        return None
    chosen = {side: fastest(calls) for side, calls in ways.items() if calls}
    times: dict[str, list[float]] = {side: [] for side in chosen}
    idle = [machine.idle_cpus()]
    for done in range(turns):
        if done >= 3 and time.perf_counter() > end:
            break
        for side, (function, repeats, _) in chosen.items():
            times[side].append(turn(function, repeats))
            if side != "fastnn":
                time.sleep(GAP)
        if done % max(1, turns // CHECKS) == 0:
            idle.append(machine.idle_cpus())
    idle_cpus = statistics.median(idle)
    row: dict[str, Any] = {"group": case.group, "name": case.name, "flops": case.flops, "bytes": case.bytes}
    row |= {"dtype": case.dtype, "turns": len(times["fastnn"]), "idle_cpus": idle_cpus}
    row["contended"] = idle_cpus < SHARE * machine.threads
    row["seconds"] = {side: min(seconds) for side, seconds in times.items()}
    row["share"] = machine.share(case, row["seconds"]["fastnn"])
    row["ways"] = {side: tried for side, (_, _, tried) in chosen.items() if len(tried) > 1}
    row["ratio"], row["quartiles"], row["bad_turns"] = {}, {}, {}
    for side, (_, _, tried) in chosen.items():
        if side == "fastnn":
            continue
        best = min(row["seconds"][side], *tried.values())
        pairs = list(zip(times["fastnn"], times[side]))
        good = [(ours, theirs) for ours, theirs in pairs if theirs <= bad * best] or pairs
        row["bad_turns"][side] = sum(theirs > bad * best for _, theirs in pairs)
        quartiles = statistics.quantiles([theirs / ours for ours, theirs in good] * 2, n=4)
        row["ratio"][side], row["quartiles"][side] = quartiles[1], [quartiles[0], quartiles[2]]
    return row
