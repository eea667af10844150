"""``fastnn bench``: the time of each layer beside the least that this machine's limits allow (a roofline).

Operations: two for each multiply-add; one for each element that a pooling window or another layer reads. Bytes: the
layer's input, output and parameters once (backward: their gradients too). Source: Williams, Waterman, Patterson (2009).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .recipes import MODELS
from .runs import build_model, set_threads
from .summary import layers, print_table
from .summary import row as describe

TURN = 0.01  # seconds that a turn repeats a call; the best of TURNS counts
TURNS = 5


def run(args: Any) -> int:
    from .. import get_num_threads, manual_seed, no_grad, tensor
    from .._core import isa
    from ..kernels.peak import fma_peak, memory_peak

    set_threads(args)
    manual_seed(0)
    model, shape = build_model(args.model), (args.batch_size, *MODELS[args.model].input_shape)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    threads = get_num_threads()
    flops, bandwidth = fma_peak(threads), max(memory_peak().values())
    rows = []
    for i, (path, module, x, y) in enumerate(layers(model, images)):
        if np.may_share_memory(x.array, y.array):
            continue  # Flatten, Dropout in evaluation: nothing is done
        rows += _measure(path, module, x, y, args.backward, first=i == 0)
    for row in rows:
        row["intensity"] = row["operations"] / row["bytes"]
        row["speed"] = row["operations"] / row["seconds"]
        row["roof"] = min(flops, bandwidth * row["intensity"])
        row["share"] = row["speed"] / row["roof"]
    with no_grad():
        whole = _best(lambda: model(tensor(images)))
    facts = {
        "model": args.model,
        "input": list(shape),
        "threads": threads,
        "instruction_set": isa(),
        "peak_flops": flops,
        "peak_bandwidth": bandwidth,
        "layers": rows,
        "forward_seconds": whole,
    }
    if args.plot:
        from ..viz import roofline

        title = f"{args.model}, batch {args.batch_size}, {threads} threads, {isa()}"
        roofline(rows, flops, bandwidth, args.plot, title)
    print(json.dumps(facts)) if args.json else _print(facts)
    return 0


def _measure(path: str, module: Any, x: Any, y: Any, backward: bool, first: bool) -> list[dict[str, Any]]:
    """A row for the layer's forward pass, and one for its gradients."""
    from .. import no_grad

    facts = describe(path, module, x, y)
    parameters = facts["parameters"]
    work = 2 * facts["multiply_adds"] or _reads(module, x, y)
    base = {"layer": path, "kind": facts["kind"], "output": facts["output"]}
    with no_grad():
        seconds = _best(lambda: module(x))
    moved = x.array.nbytes + y.array.nbytes + 4 * parameters
    rows = [{**base, "pass": "forward", "seconds": seconds, "operations": work, "bytes": moved}]
    if backward:
        leaf = x.detach().requires_grad_(not first)  # a first layer's input wants no gradient
        result = module(leaf)
        if result.requires_grad:
            dy, wanted = np.ones_like(y.array), [leaf, *module.parameters()]

            def gradients() -> None:
                for tensor in wanted:
                    tensor.grad = None
                result.backward(dy, retain_graph=True)

            # A product is done twice, once for each gradient.
            work *= 2 if facts["gemm"] and not first else 1
            moved += (0 if first else x.array.nbytes) + 4 * parameters
            rows.append({**base, "pass": "backward", "seconds": _best(gradients), "operations": work, "bytes": moved})
    return rows


def _reads(module: Any, x: Any, y: Any) -> int:
    """One operation for each element that is read: a pool's windows, elsewhere the input."""
    kernel = getattr(module, "kernel_size", None)
    if kernel is None:
        return int(x.array.size)
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return int(y.array.size) * math.prod(sizes)


def _best(call: Callable[[], Any]) -> float:
    """Seconds of a call, the best of some turns."""
    call()
    start = time.perf_counter()
    call()
    repeats = max(1, int(TURN / max(time.perf_counter() - start, 1e-7)))
    times = []
    for _ in range(TURNS):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - start) / repeats)
    return min(times)


def _print(facts: dict[str, Any]) -> None:
    flops, bandwidth = facts["peak_flops"], facts["peak_bandwidth"]
    size = "x".join(map(str, facts["input"]))
    print(f"{facts['model']}, input {size}, {facts['threads']} threads, {facts['instruction_set']}")
    print(
        f"measured peaks: {flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s; "
        f"from {flops / bandwidth:.1f} operations per byte on, a layer can reach the first\n"
    )
    head = ("layer", "kind", "pass", "output", "time", "GFLOP/s", "MB", "FLOP/byte", "bound by", "share")
    lines: list[tuple[str, ...]] = [head]
    for row in facts["layers"]:
        cells = (
            row["layer"],
            row["kind"],
            row["pass"],
            "x".join(map(str, row["output"])),
            _time(row["seconds"]),
            f"{row['speed'] / 1e9:.1f}",
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['intensity']:.2f}",
            "compute" if row["roof"] == flops else "memory",
            f"{row['share']:.0%}",
        )
        lines.append(cells)
    for which in ("forward", "backward"):
        rows = [row for row in facts["layers"] if row["pass"] == which]
        if not rows:
            continue
        seconds = sum(row["seconds"] for row in rows)
        least = sum(row["operations"] / row["roof"] for row in rows)
        speed = sum(row["operations"] for row in rows) / seconds / 1e9
        moved = sum(row["bytes"] for row in rows) / 1e6
        lines.append(
            ("sum", "", which, "", _time(seconds), f"{speed:.1f}", f"{moved:.2f}", "", "", f"{least / seconds:.0%}")
        )
    print_table(lines, right=(4, 5, 6, 7, 9))
    print(f"\nthe model's forward pass as a whole: {_time(facts['forward_seconds'])}")


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
