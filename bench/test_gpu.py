"""The GPU's cases under pytest-benchmark: `pytest bench/test_gpu.py [-k gemm]`. Left out where there is no GPU.

pytest-benchmark's own times are the host's, each call waited for; the device's times and the ratios to the peers,
measured in turns (gpu/measure.py), stand in extra_info and are printed as a table at the end.
"""

from __future__ import annotations

import pytest
from gpu.cases import CASES, ours
from gpu.measure import Clock, copy_bandwidth, measure

from fastnn import cuda

pytestmark = [
    pytest.mark.skipif(not cuda.is_available(), reason="no GPU that CuPy can use"),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def clock():
    return Clock()


@pytest.fixture(scope="module")
def bandwidth(clock):
    return copy_bandwidth(clock)


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_speed(benchmark, clock, bandwidth, gpu_rows, case):
    benchmark.group = case.group
    row = measure(clock, case, 5, bandwidth)
    benchmark.extra_info.update(row)
    gpu_rows.append(row)
    with ours(case.precision):
        call = case.make("fastnn")

        def waited():
            call()
            clock.gpu.synchronize()

        benchmark.pedantic(waited, rounds=5, iterations=5, warmup_rounds=1)
