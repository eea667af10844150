"""The benches' own code: a case is timed, printed and put into tables; what they find is not judged here."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import compare
import measure
import report
from cases import CASES
from cases.case import Case
from cases.case import compare as case_of


@pytest.fixture(scope="module")
def row():
    machine = measure.Machine()
    case = case_of(
        "gemm",
        "tiny",
        [(8, 8), (8, 8)],
        lambda a, b: lambda: a @ b,
        numpy=lambda a, b: {"contiguous": lambda: a @ b, "slow": lambda: [a @ b for _ in range(9)]},
        flops=1024.0,
    )
    assert measure.measure(Case("none", "of the peers", lambda side: None), machine, ["numpy"], 3, 1.0) is None
    return machine, measure.measure(case, machine, ["numpy"], 3, 1.0)


def test_a_case_is_measured(row):
    machine, row = row
    low, high = row["quartiles"]["numpy"]
    assert 0 < low <= row["ratio"]["numpy"] <= high < 100
    assert list(row["ways"]["numpy"]) == ["contiguous", "slow"]
    assert row["share"] == pytest.approx(1024 / row["seconds"]["fastnn"] / machine.all)
    text = compare.line(row, ["numpy"])
    assert text.startswith("gemm: tiny") and "GFLOP/s" in text and "numpy: contiguous (slow" in text


def test_means():
    def row(group, ratio):
        return {"group": group, "ratio": {"torch": ratio}, "ways": {}, "seconds": {"fastnn": 1.0}}

    found = compare.means([row("a", 1.0), row("a", 4.0), row("b", 2.0)], "torch")
    assert found == pytest.approx({"a": 2.0, "b": 2.0, "all rows": 2.0})
    other = {**row("a", 1.0), "ways": {"torch": {"channels_last": 1.0, "contiguous": 3.0}}}
    assert compare.means([other], "torch", default=True) == pytest.approx({"a": 3.0})


def test_tables(row):
    machine, row = row
    row = {**row, "ratio": {"torch": 2.0}, "quartiles": {"torch": [1.0, 3.0]}, "ways": {}, "bad_turns": {"torch": 0}}
    row |= {"group": "training step", "name": "lenet5 batch 64", "seconds": {"fastnn": 0.5, "torch": 1.0}}
    found = {
        "threads": 2,
        "isa": "avx2",
        "peers": ["torch"],
        **machine.peaks(),
        "rows": [row, {**row, "group": "gemm"}],
    }
    about = {"date": "2026-11-21", "cpu": "a CPU", "isa": "avx2", "versions": "versions"}
    text = report.results({"all": found}, report.PARTS, about)
    assert "| training step | 1 | 2.00 |" in text and "| all rows | 2 | 2.00 |" in text and "500000.0us" in text
    assert "| LeNet training step, batch 64 | 500.00 ms | 2.00 [1.00 3.00]" in report.short(
        {"all": found}, about, "f.md"
    )


def test_the_report_names_cases_that_there_are():
    titles = {case.title for case in CASES}
    assert not [title for _, title, _ in report.SHORT if title not in titles]
    groups = {case.group for case in CASES}
    assert set(report.QUICK_SKIPS) <= groups
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert all(readme.count(marker) == 1 for marker in report.MARKERS)


def test_words_choose_cases():
    given = argparse.Namespace(words=["lenet", "forward"], skip=["max_pool2d"], group=None)
    chosen = [case for case in CASES if compare.wanted(case, given)]
    assert chosen and all("lenet" in case.title and case.group != "max_pool2d" for case in chosen)
    assert np.all([case.flops >= 0 and case.bytes >= 0 for case in CASES])
