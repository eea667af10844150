"""What is timed: each case once, for fastnn and for its peers, on the models' real shapes and over a sweep of sizes.

Three runners read this list: `python bench/compare.py` (paired, interleaved ratios), `pytest bench` (the same under
pytest-benchmark) and `python bench/report.py` (everything, as tables). Next: case.py for what a case is.
"""

from __future__ import annotations

from . import convolution, matrix, memory, pool, records, training
from .case import SIDES, Call, Case, torch

__all__ = ["CASES", "SIDES", "Call", "Case", "torch"]

CASES: list[Case] = [
    *matrix.CASES,
    *convolution.CASES,
    *pool.CASES,
    *memory.CASES,
    *training.CASES,
    *records.CASES,
]
