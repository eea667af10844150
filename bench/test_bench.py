"""Every case under pytest-benchmark: `pytest bench`, or a part of it: `pytest bench -k "gemm and 512"`.

The absolute times are fastnn's. The ratios to the peers that are installed, measured turn by turn in the same run
(measure.py), the share of the peak and whether the machine was contended stand in each benchmark's extra_info.
"""

from __future__ import annotations

import pytest
from cases import CASES, Case, torch
from measure import Machine, fastest, measure

PEERS = ["numpy", "torch"] if torch() else ["numpy"]
TURNS = 5
pytestmark = pytest.mark.filterwarnings("default")  # PyTorch warns of what it will change


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_speed(benchmark, machine: Machine, rows: list, case: Case):
    benchmark.group = case.group
    if row := measure(case, machine, PEERS, TURNS, limit=2.0):
        benchmark.extra_info.update(row)
        rows.append(row)
    function, repeats, _ = fastest(case.ways("fastnn"))
    benchmark.pedantic(function, rounds=TURNS, iterations=repeats)
