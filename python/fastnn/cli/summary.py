"""``fastnn summary``: each layer's output, parameters, multiply-adds, and the matrix product (M, N, K) that it is.

A convolution multiplies its weights (M = output channels, K = channels / groups * kernel height * width) with the
patches under the kernel (N = batch * output height * width), once per group; a linear layer its weights (M = outputs,
K = inputs) with the batch (N).
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from . import UsageError
from .recipes import MODELS
from .runs import build_model


def run(args: Any) -> int:
    model = build_model(args.model)
    shape = args.input_shape or MODELS[args.model].input_shape
    try:
        rows = [row(*found) for found in layers(model, np.zeros((args.batch_size, *shape), np.float32))]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{args.model} does not take images of {'x'.join(map(str, shape))}: {error}") from None
    parameters = sum(int(p.numel()) for p in model.parameters())
    total = sum(entry["multiply_adds"] for entry in rows)
    if args.json:
        facts = {"model": args.model, "input": [args.batch_size, *shape], "parameters": parameters}
        print(json.dumps({**facts, "multiply_adds": total, "layers": rows}))
        return 0
    print(f"{args.model}, input {args.batch_size}x{'x'.join(map(str, shape))}\n")
    head = ("layer", "kind", "output", "parameters", "multiply-adds", "GEMM M x N x K")
    print_table(
        [head, *(_cells(entry) for entry in rows), ("total", "", "", f"{parameters:,}", f"{total:,}", "")], (3, 4)
    )
    return 0


def print_table(lines: list[tuple[str, ...]], right: tuple[int, ...]) -> None:
    """Print lines of as many cells each, in columns; those in ``right`` are aligned to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def layers(model: Any, x: Any) -> list[tuple[str, Any, Any, Any]]:
    """(path, layer, input, output) of each layer that holds no other, in the order in which they run on ``x``."""
    from .. import no_grad, tensor

    found: list[tuple[str, Any, Any, Any]] = []

    def look(path: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            found.append((path, module, inputs[0], output))

        return hook

    leaves = [(path, module) for path, module in model.named_modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(look(path)) for path, module in leaves]
    model.eval()
    try:
        with no_grad():
            model(tensor(x))
    finally:
        for handle in handles:
            handle.remove()
    return found


def row(path: str, module: Any, x: Any, y: Any) -> dict[str, Any]:
    """What the summary says of a layer."""
    gemm = None
    groups = 1
    weight: Any = getattr(module, "weight", None)
    kind = type(module).__name__
    if kind == "Conv2d":
        groups = module.groups
        gemm = (weight.shape[0] // groups, y.shape[0] * math.prod(y.shape[2:]), math.prod(weight.shape[1:]))
    elif kind == "Linear":
        gemm = (weight.shape[0], math.prod(x.shape[:-1]), weight.shape[1])
    return {
        "layer": path,
        "kind": kind,
        "output": list(y.shape),
        "parameters": sum(int(p.numel()) for p in module.parameters()),
        "multiply_adds": groups * math.prod(gemm) if gemm else 0,
        "gemm": None if gemm is None else {"M": gemm[0], "N": gemm[1], "K": gemm[2], "count": groups},
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    gemm = row["gemm"]
    product = ""
    if gemm is not None:
        product = f"{gemm['M']} x {gemm['N']} x {gemm['K']}" + (f", {gemm['count']} times" if gemm["count"] > 1 else "")
    output = "x".join(map(str, row["output"]))
    adds = f"{row['multiply_adds']:,}" if gemm else ""
    return row["layer"], row["kind"], output, f"{row['parameters']:,}" if row["parameters"] else "", adds, product
