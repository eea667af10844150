"""How a case is timed on a GPU: by its own clock (CUDA events around a run of calls), sides in turns, ratios by turn.

A run of calls is enqueued without waiting, as in training: where a side's Python is slower than its kernels, the
device waits for it, and that is in its time. Everything is warmed up first: kernels are compiled, cuDNN has chosen.
"""

from __future__ import annotations

import statistics
from typing import Any

from fastnn.cuda.device import named

from .cases import PEERS, Call, Case, arrays, ours, tell_torch

TURN = 0.02  # seconds


class Clock:
    def __init__(self) -> None:
        self.gpu = named("cuda")
        cuda = self.gpu.xp.cuda
        self.begin, self.end, self.elapsed = cuda.Event(), cuda.Event(), cuda.get_elapsed_time

    def time(self, call: Call, repeats: int) -> float:
        """Seconds a call takes, on average over a run."""
        self.gpu.synchronize()
        self.begin.record()
        for _ in range(repeats):
            call()
        self.end.record()
        self.end.synchronize()
        return self.elapsed(self.begin, self.end) * 1e-3 / repeats


def prepare(clock: Clock, call: Call) -> int:
    """Warm up, and say how many calls make a turn."""
    for _ in range(3):
        call()
    seconds = clock.time(call, 3)
    return max(1, min(2000, int(TURN / max(seconds, 1e-6))))


def copy_bandwidth(clock: Clock) -> float:
    """Bytes a second that the device copies, read and written counted: the best of five."""
    x, y = arrays((1 << 28,), (1 << 28,))

    def copy() -> None:
        y[...] = x

    copy()
    return 2.0 * x.nbytes / min(clock.time(copy, 10) for _ in range(5))


def measure(clock: Clock, case: Case, turns: int, bandwidth: float) -> dict[str, Any]:
    """The case's row: best time of each side, medians and quartiles of the ratios peer / fastnn."""
    tell_torch(case.precision)
    with ours(case.precision):
        calls = {side: call for side in ("fastnn", *PEERS) if (call := case.make(side)) is not None}
        repeats = {side: prepare(clock, call) for side, call in calls.items()}
        times = {side: [] for side in calls}
        for _ in range(turns):
            for side, call in calls.items():
                times[side].append(clock.time(call, repeats[side]))
    best = {side: min(seconds) for side, seconds in times.items()}
    row: dict[str, Any] = {"group": case.group, "name": case.name, "seconds": best, "ratio": {}, "quartiles": {}}
    row["tflops"] = case.flops / best["fastnn"] / 1e12 if case.flops else None
    row["share"] = case.bytes / best["fastnn"] / bandwidth if case.bytes else None
    for side in calls.keys() - {"fastnn"}:
        ratios = [theirs / mine for mine, theirs in zip(times["fastnn"], times[side])]
        low, middle, high = statistics.quantiles(ratios * 2, n=4)
        row["ratio"][side], row["quartiles"][side] = middle, [low, high]
    return row
