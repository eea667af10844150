"""Before NumPy is imported: the threads of its BLAS spin for 2^20 cycles after a call, not 2^26 (compare.py).

After pytest-benchmark's tables of absolute times come the ratios to the peers.
"""

import os
from typing import Any

import pytest

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
ROWS: list[dict[str, Any]] = []
GPU_ROWS: list[dict[str, Any]] = []


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """What ``measure`` found so far."""
    return ROWS


@pytest.fixture(scope="session")
def gpu_rows() -> list[dict[str, Any]]:
    """What gpu/measure.py found so far."""
    return GPU_ROWS


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if GPU_ROWS:
        import compare_gpu

        terminalreporter.section("on the GPU")
        for text in (compare_gpu.heading(), *map(compare_gpu.line, GPU_ROWS)):
            terminalreporter.write_line(text)
    if not ROWS:
        return
    from compare import heading, line

    peers = sorted({peer for row in ROWS for peer in row["ratio"]})
    terminalreporter.section("ratios, peer / fastnn: median [quartiles]")
    terminalreporter.write_line(heading(peers))
    for row in ROWS:
        terminalreporter.write_line(line(row, peers))
