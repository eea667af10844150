"""The plan of the house, as tests: imports point one way, each op has its places, instruction sets share no code."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from records import all_records

import fastnn
from fastnn import _core, functional, kernels

PACKAGE = Path(fastnn.__file__).parent
ROOT = Path(__file__).parents[1]

# Import only from the same row or an earlier one.
ROWS = [
    {"_core", "philox", "cuda"},
    {"kernels", "random", "io"},
    {"autograd", "tape"},
    {"functional", "constructors"},
    {"nn", "optim"},
    {"models", "data"},
    {"train", "viz", "config"},
    {"cli", "__main__"},
]
RANK = {room: i for i, row in enumerate(ROWS) for room in row}


def imports(path):
    """The rooms that a file imports, with the line of each."""
    package = ["fastnn", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "fastnn" else [module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "fastnn" and len(parts) > 1:
                yield parts[1], node.lineno


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_one_way():
    wrong, unknown = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        if room == "__init__":
            continue
        if room not in RANK:
            unknown.add(room)
            continue
        for other, line in imports(path):
            if other in RANK and RANK[other] > RANK[room]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {other}")
    assert not unknown, f"rooms without a place in ROWS: {unknown}"
    assert not wrong, "\n".join(wrong)


def public(module):
    return {n: f for n, f in vars(module).items() if inspect.isfunction(f) and not n.startswith("_")}


def test_every_kernel_of_the_table_is_called():
    text = "\n".join(path.read_text() for path in (PACKAGE / "kernels").glob("*.py"))
    unused = [name for name in _core.specs if not re.search(rf"\b{name}\b", text)]
    assert not unused, f"kernels that fastnn.kernels never calls: {unused}"


def test_every_kernel_function_takes_out():
    missing = [name for name, f in public(kernels).items() if "out" not in inspect.signature(f).parameters]
    in_place = {"sgd_step", "adam_step", "scale", "total_norm"}  # or a number
    assert set(missing) <= in_place, f"without out=: {sorted(set(missing) - in_place)}"


def test_every_op_has_a_record():
    recorded = {getattr(record.op, "__name__", record.name) for record in all_records()}
    recorded |= {record.name.split(":")[0] for record in all_records()}
    missing = [name for name, f in public(functional).items() if name not in recorded]
    assert not missing, f"ops of fastnn.functional without a record in tests/records/: {missing}"


def test_every_op_has_a_bench():
    sys.path.append(str(ROOT / "bench"))
    from cases import CASES

    titles = [case.title for case in CASES]
    assert len(set(titles)) == len(titles)
    timed = {case.name.split(":")[0] for case in CASES if case.group == "op"}
    missing = [name for name in public(functional) if name not in timed]
    assert not missing, f"ops of fastnn.functional without a case in bench/cases/: {missing}"


def test_every_public_function_says_what_it_does():
    silent = []
    for module in (fastnn, functional, kernels):
        silent += [f"{module.__name__}.{n}" for n, f in public(module).items() if not (f.__doc__ or "").strip()]
    assert not silent, silent


def test_only_numpy_is_imported_by_the_core():
    code = "import sys, numpy; before = set(sys.modules); import fastnn; print(*sorted(set(sys.modules) - before))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    foreign = [m for m in modules if m.split(".")[0] not in {"fastnn", "numpy"} | sys.stdlib_module_names]
    assert not foreign, foreign
    heavy = {"argparse", "urllib", "json", "http", "socket", "matplotlib", "multiprocessing", "asyncio"}
    assert not heavy & {m.split(".")[0] for m in modules}


def objects(isa):
    """The object files of one instruction set, where the tree was built in place or by pip."""
    return sorted(ROOT.glob(f"build/**/cpu_{isa}.dir/**/*.o"))


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_instruction_sets_share_no_code(isa):
    """A weak function compiled for AVX-512 and merged by the linker would crash older CPUs."""
    files = objects(isa)
    if not files:
        pytest.skip("no build tree here")
    leaked = set()
    for line in subprocess.run(["nm", "-C", *map(str, files)], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    ):
        symbol = re.match(r"[0-9a-f]* ([A-Za-z]) (.*)", line.strip())
        if symbol is None or symbol[1] not in "WVTDBRu":
            continue
        name = symbol[2]
        if f"fastnn::{isa}::" not in name and not name.startswith("DW.ref."):
            leaked.add(f"{symbol[1]} {name}")
    assert not leaked, f"{isa} exports code or data outside its namespace: {sorted(leaked)[:20]}"
