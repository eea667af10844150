"""Every kernel of the table compiles with NVRTC for every architecture, without spills and within its budget. No GPU.

A cold run compiles on all CPUs; what was compiled stays in the cache of compiled kernels (FASTNN_CACHE).
``python -m fastnn.cuda`` prints the same as a table.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from fastnn.cuda import nvrtc, sources
from fastnn.cuda.budget import compile_all, problems
from fastnn.cuda.table import ARCHS, UNITS

try:
    nvrtc.find()
    missing = ""
except ImportError as error:
    missing = str(error)

needs_nvrtc = pytest.mark.skipif(bool(missing), reason=f"needs NVRTC: pip install '.[cuda-test]' ({missing})")


@pytest.fixture(scope="module")
def compiled():
    return compile_all()


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("unit", UNITS)
def test_every_kernel_compiles_within_its_budget(compiled, unit, arch):
    rows = compiled[unit, arch].result()
    assert {row.kernel.expression for row in rows} == {e for e, k in UNITS[unit].kernels.items() if k.fits(arch)}
    wrong = [text for row in rows for text in problems(row)]
    assert not wrong, "\n".join(wrong)


def test_every_row_of_the_table_names_a_kernel_of_its_file():
    for unit in UNITS.values():
        for expression in unit.kernels:
            parameters = sources.signature(unit.file, expression)  # raises where there is none, or it cannot be read
            assert parameters and all(p.name for p in parameters), expression


def test_every_kernel_of_every_file_is_in_the_table():
    """What no row names is never compiled, never tested."""
    named = {(u.file, sources.expression_parts(e)[0]) for u in UNITS.values() for e in u.kernels}
    files = sorted(path.name for path in (sources.folder() / "cuda").glob("*.cu"))
    for file in files:
        text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", (sources.folder() / "cuda" / file).read_text(), flags=re.DOTALL)
        count = len(re.findall(r"\b__global__\b", text))
        found = re.findall(r"__global__[^;{(]*?(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\(", text)
        assert len(found) == count, f"{file}: {count} kernels, of which {found} can be read"
        unused = [name for name in found if (file, name) not in named]
        assert not unused, f"{file}: kernels without a row in fastnn/cuda/table.py: {unused}"


@needs_nvrtc
def test_a_text_that_does_not_compile_is_refused_with_its_log():
    with pytest.raises(nvrtc.CompileError, match=r"broken.cu does not compile with -arch=sm_90(?s:.)*undefined_name"):
        nvrtc.compile("broken.cu", "__global__ void f() { undefined_name = 1; }", {}, ["f"], ["-arch=sm_90"])
    with pytest.raises(nvrtc.CompileError, match="missing"):
        nvrtc.compile("broken.cu", '#include "missing.cuh"\n__global__ void f() {}', {}, ["f"], ["-arch=sm_90"])


@needs_nvrtc
def test_spills_are_seen():
    """The gate itself: a kernel that cannot hold its values in 24 registers is reported."""
    text = """
    __global__ void f(const float* x, float* y) {
      float v[64];
      for (int i = 0; i < 64; ++i) v[i] = x[i * 32 + threadIdx.x];
      __syncthreads();
      for (int k = 0; k < 8; ++k)
    #pragma unroll
        for (int i = 0; i < 64; ++i) v[i] += v[(i * 7 + 3) % 64] * v[(i + 11) % 64];
    #pragma unroll
      for (int i = 0; i < 64; ++i) y[i * 32 + threadIdx.x] = v[i];
    }"""
    options = ["-arch=sm_80", "--maxrregcount=24", "--ptxas-options=-v"]
    made = nvrtc.compile("spills.cu", text, {}, ["f"], options)
    assert made.resources["f"].spills > 0 and made.resources["f"].registers <= 24
    assert made.cubin[:4] == b"\x7fELF" and made.names["f"].encode() in made.cubin


@needs_nvrtc
def test_the_command_prints_the_table(compiled):
    compiled["elementwise", 80].result()
    command = [
        sys.executable,
        "-m",
        "fastnn.cuda",
        "--unit",
        "elementwise",
        "--arch",
        "80",
        "--kernel",
        "relu_of<float>",
    ]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[0].split()[:4] == ["unit", "kernel", "threads", "registers"]
    assert any("map<float, relu_of<float>>" in line and line.endswith("80") for line in printed)


def test_the_command_says_what_it_does():
    text = subprocess.run([sys.executable, "-m", "fastnn.cuda", "--help"], capture_output=True, text=True, check=True)
    assert "registers" in text.stdout and "--arch" in text.stdout
