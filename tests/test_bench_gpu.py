"""The GPU's bench cases at a small size on the emulated device: each builds its arrays and runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def cases(emulated, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    from gpu import cases

    return cases


def test_cases_run(cases):
    small = [cases.gemm(17, 9, 33, precision, True) for precision in cases.PRECISIONS]
    small += [*cases.conv("layer", 2, 4, 6, 5, 3, 1, "medium"), cases.training_step("lenet5", 2, "highest")]
    small += [cases.optimizer_step("SGD", 64, 5), cases.optimizer_step("Adam", 64, 7)]
    for case in small:
        with cases.ours(case.precision):
            call = case.make("fastnn")
            call()
            call()
    assert len({case.title for case in cases.CASES}) == len(cases.CASES)


def test_memory_cases_run(cases, monkeypatch):
    shapes = {(8192, 8192): (4, 8), (65536, 1000): (6, 1000), (256, 64, 32, 32): (2, 3, 4, 4)}
    monkeypatch.setattr(cases, "arrays", lambda *sizes, make=cases.arrays: make(*(shapes[size] for size in sizes)))
    monkeypatch.setattr(cases.F, "layer_norm", lambda x, shape, f=cases.F.layer_norm: f(x, x.shape[1:]))
    for case in cases._memory():
        if "step" not in case.name and "cross" not in case.name:
            case.make("fastnn")()


@pytest.mark.parametrize("script", ["compare_gpu.py", "gpu_suite"])
def test_without_a_gpu_they_say_so_and_end(script):
    result = subprocess.run([sys.executable, str(BENCH / script)], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    from fastnn import cuda

    assert cuda.is_available() or "no GPU" in result.stdout
