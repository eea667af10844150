"""Paired ratios on a GPU: `python bench/compare_gpu.py [words] [--turns 9] [--json FILE]`.

One table: fastnn's best time, the ratios peer / fastnn (above 1, fastnn is faster) with quartiles, TFLOP/s, and for
memory-bound ops the share of the copy bandwidth measured in the same run. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from cases.case import torch


def heading() -> str:
    return f"{'case':<52} {'fastnn':>11}  peer / fastnn, median [quartiles]"


def line(row: dict[str, Any]) -> str:
    cells = [f"{row['group'] + ': ' + row['name']:<52} {row['seconds']['fastnn'] * 1e6:9.1f}us "]
    for peer in sorted(row["ratio"]):
        low, high = row["quartiles"][peer]
        cells.append(f"{peer} {row['ratio'][peer]:.2f} [{low:.2f} {high:.2f}]")
    if row["tflops"] is not None:
        cells.append(f"{row['tflops']:.1f} TFLOP/s")
    if row["share"] is not None:
        cells.append(f"{row['share']:.0%} of the copy bandwidth")
    return "  ".join(cells)


def describe() -> str:
    """The device and the versions, in one line."""
    import fastnn
    from fastnn.cuda.device import named

    gpu = named("cuda")
    t = torch()
    versions = [f"fastnn {fastnn.__version__}", f"CuPy {gpu.xp.__version__}"]
    versions += [f"PyTorch {t.__version__}, cuDNN {t.backends.cudnn.version()}"] if t else []
    return f"{gpu.name}, {gpu.multiprocessors} multiprocessors, sm_{gpu.arch}; {', '.join(versions)}"


def run(words: list[str], turns: int) -> dict[str, Any]:
    """Measure and print the cases whose titles hold all the words."""
    from gpu.cases import CASES
    from gpu.measure import Clock, copy_bandwidth, measure

    clock = Clock()
    bandwidth = copy_bandwidth(clock)
    about = f"{describe()}; copy {bandwidth / 1e12:.2f} TB/s"
    print(about, heading(), sep="\n", flush=True)
    rows = []
    for case in CASES:
        if all(word in case.title for word in words):
            rows.append(measure(clock, case, turns, bandwidth))
            print(line(rows[-1]), flush=True)
            clock.gpu.xp.get_default_memory_pool().free_all_blocks()
    means = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        ratios = [row["ratio"]["torch"] for row in rows if row["group"] == group and "torch" in row["ratio"]]
        if ratios:
            means[group] = statistics.geometric_mean(ratios)
    print("geometric means, torch / fastnn:", ", ".join(f"{group} {mean:.2f}" for group, mean in means.items()))
    return {"about": about, "rows": rows, "means": means}


def main() -> None:
    parser = argparse.ArgumentParser(description="Paired ratios of speed on a GPU, against PyTorch and CuPy.")
    parser.add_argument("words", nargs="*", help="time only cases whose 'group: name' holds all of these")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", help="write the results to this file too")
    given = parser.parse_args()
    if given.turns < 1:
        parser.error("--turns must be at least 1")
    from fastnn import cuda

    if not cuda.is_available():
        print("no GPU that CuPy can use: nothing was measured")
        return
    result = run(given.words, given.turns)
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
