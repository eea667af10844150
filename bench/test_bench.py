"""Every case on every side under pytest-benchmark: `pytest bench`, or a part of it: `pytest bench -k "gemm and 512"`.

Absolute times on a shared machine swing; for figures to quote use compare.py.
"""

from __future__ import annotations

import time

import pytest
from cases import CASES, SIDES, Case


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", CASES, ids=[f"{c.group}: {c.name}" for c in CASES])
def test_speed(benchmark, case: Case, side: str):
    function = case.make(side)
    if function is None:
        pytest.skip(f"{side} has no such function, or is not installed")
    benchmark.group = f"{case.group}: {case.name}"
    if case.flops:
        benchmark.extra_info["flops"] = case.flops
    time.sleep(0.025)  # PyTorch's threads spin on after its ops and would slow whoever comes next
    function()
    benchmark(function)
