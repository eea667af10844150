"""Every instruction set of this build that this machine can run passes the op tests; FASTNN_ISA chooses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastnn import _core

SUPPORTED = [name for name, supported in _core.built_isas().items() if supported]
OTHERS = [name for name in SUPPORTED if name != _core.isa()]


def test_the_best_is_chosen_and_the_choice_is_reported():
    assert _core.isa() in SUPPORTED


@pytest.mark.skipif("FASTNN_ISA" in os.environ, reason="already run for one instruction set")
@pytest.mark.parametrize("isa", OTHERS)
def test_ops_on(isa):
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        + ["-k", "forward or gradient or strided", str(Path(__file__).parent / "test_ops.py")],
        env={**os.environ, "FASTNN_ISA": isa, "FASTNN_TEST_DEVICES": "cpu"},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]


@pytest.mark.parametrize("name", ["avx1024", "AVX2 ", *(n for n, ok in _core.built_isas().items() if not ok)])
def test_an_impossible_one_is_an_error_that_names_the_possible(name):
    result = subprocess.run(
        [sys.executable, "-c", "import fastnn"], env={**os.environ, "FASTNN_ISA": name}, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert f"FASTNN_ISA={name}" in result.stderr and "baseline" in result.stderr
