"""Makes units (a .cu file and the kernels asked of it) with g++, keeps them under a hash of all that they come from,
and loads them. ``python -m emulator`` (in tests/) builds every unit of the package's table, on all CPUs.

Modes: ``plain``, with g++'s checks of alignment, null pointers and array bounds, reported as errors of the launch;
``address`` and ``thread`` under the sanitizers, whose libraries must be loaded before Python (tests/emulator/sanitize).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

HERE = Path(__file__).parent
TREE = HERE.parents[1]
COMPILER = os.environ.get("CXX", "g++")
CHECKS = "alignment,null,bounds"
FLAGS = ["-std=c++17", "-fPIC", "-g1", "-w", "-fno-strict-aliasing", "-ffp-contract=off", "-fvisibility=hidden"]
MODES = {
    "plain": ["-O1", f"-fsanitize={CHECKS}", f"-fno-sanitize-recover={CHECKS}"],
    "address": ["-O1", "-fsanitize=address", "-fsanitize-recover=address"],
    "thread": ["-O1", "-fsanitize=thread"],
}
RUNTIME_FLAGS = ["-std=c++17", "-fPIC", "-O2", "-g1", "-fno-builtin", "-fno-tree-loop-distribute-patterns"]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def mode() -> str:
    """How units are built, by FASTNN_EMULATOR_MODE."""
    chosen = os.environ.get("FASTNN_EMULATOR_MODE", "plain")
    if chosen not in MODES:
        raise ValueError(f"FASTNN_EMULATOR_MODE must be one of {', '.join(MODES)}, got {chosen!r}")
    return chosen


def folder() -> Path:
    """Where what was built is kept: FASTNN_EMULATOR_CACHE, or build-emulator in the tree."""
    place = Path(os.environ.get("FASTNN_EMULATOR_CACHE") or TREE / "build-emulator")
    place.mkdir(parents=True, exist_ok=True)
    return place


def find(name: str, beside: Path) -> Path:
    """The file that ``#include "name"`` in a file of the folder ``beside`` means."""
    for place in (beside, TREE / "csrc" / "cuda", TREE / "csrc", TREE / "tests"):
        if (place / name).is_file():
            return (place / name).resolve()
    raise FileNotFoundError(f'#include "{name}": not beside {beside}, nor in csrc/cuda, csrc or tests')


def texts(file: Path, found: dict[Path, str] | None = None) -> dict[Path, str]:
    """The file and all that it includes."""
    found = {} if found is None else found
    if file not in found:
        found[file] = file.read_text(encoding="utf-8")
        for name in INCLUDE.findall(found[file]):
            texts(find(name, file.parent), found)
    return found


@cache
def compiler_version() -> str:
    if not shutil.which(COMPILER):
        raise FileNotFoundError(f"the emulator compiles kernels with {COMPILER}, which is not installed")
    return subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True).stdout


def made(name: str, sources: dict[Path, str], text: str, compile_flags: list[str], *link_flags: str) -> Path:
    """The shared library of ``text``, from the cache or by g++; ``sources`` are the files it includes."""
    identity = [compiler_version(), os.uname().machine, text, *compile_flags, *link_flags, *sources.values()]
    key = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:24]
    library = folder() / f"{name}-{key}.so"
    if library.is_file():
        return library
    with tempfile.TemporaryDirectory(dir=folder()) as work:
        (Path(work) / "unit.cpp").write_text(text, encoding="utf-8")
        steps = (
            [COMPILER, *compile_flags, "-c", "unit.cpp", "-o", "unit.o"],
            [COMPILER, "-shared", *link_flags, "unit.o", "-o", "unit.so"],
        )
        for step in steps:
            done = subprocess.run(step, cwd=work, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{name}: {COMPILER} refuses it:\n{done.stderr}")
        (Path(work) / "unit.so").replace(library)
    return library


@cache
def runtime() -> ctypes.CDLL:
    """The runtime, whose names every unit sees."""
    path = HERE / "runtime.cpp"
    library = made("runtime", texts(path), f'#include "{path}"\n', [*RUNTIME_FLAGS, f"-I{HERE}"])
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


@dataclass(frozen=True)
class Unit:
    """A unit's name, its file and its kernels; built and loaded when first needed."""

    name: str
    file: Path
    expressions: tuple[str, ...]

    def library(self) -> Path:
        device = HERE / "device.h"
        sources = texts(self.file, texts(device))
        rows = "".join(
            f"    {{{quoted(e)}, &EmulatorKernel<&{e}>::signature, &EmulatorKernel<&{e}>::call}},\n"
            for e in self.expressions
        )
        text = f"""#include "{device}"
namespace {{
#include "{self.file}"
}}
extern "C" {{
extern __attribute__((visibility("hidden"))) char __bss_start[], _end[];  // the linker's: all that is zero at first
__attribute__((visibility("default"))) const emulator_unit* emulator_get_unit() {{
  static const emulator_kernel kernels[] = {{
{rows}  }};
  static const emulator_unit unit = {{kernels, {len(self.expressions)}, __bss_start, _end}};
  return &unit;
}}
}}
"""
        places = [f"-I{TREE / 'csrc' / 'cuda'}", f"-I{TREE / 'csrc'}", f"-I{TREE / 'tests'}"]
        flags = [*FLAGS, *MODES[mode()], "-DFASTNN_EMULATOR", *places]
        return made(f"{self.name}-{mode()}", sources, text, flags, "-nostartfiles")


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_workers = ThreadPoolExecutor(max_workers=os.cpu_count())
_building: dict[Unit, Future[Path]] = {}
_lock = Lock()


def start(unit: Unit) -> Future[Path]:
    """Begin to build a unit, if nobody has."""
    with _lock:
        if unit not in _building:
            _building[unit] = _workers.submit(unit.library)
        return _building[unit]


class Dim(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


class Launch(ctypes.Structure):
    _fields_ = [
        ("grid", Dim),
        ("block", Dim),
        ("shared", ctypes.c_uint64),
        ("threads", ctypes.c_int),
        ("blocks", ctypes.c_int),
        ("seed", ctypes.c_uint64),
    ]


class _Kernel(ctypes.Structure):
    _fields_ = [
        ("expression", ctypes.c_char_p),
        ("signature", ctypes.CFUNCTYPE(ctypes.c_char_p)),
        ("call", ctypes.c_void_p),
    ]


class _Unit(ctypes.Structure):
    _fields_ = [
        ("kernels", ctypes.POINTER(_Kernel)),
        ("count", ctypes.c_int),
        ("shared_begin", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p),
    ]


class LaunchError(RuntimeError):
    """The kernel did what would hang, crash or go wrong on a GPU."""


class Loaded:
    """A unit in memory."""

    def __init__(self, unit: Unit) -> None:
        self.runtime = runtime()
        path = start(unit).result()
        self.unit = self._open(path)
        self.twin = self.unit
        if mode() == "thread":  # a copy has its own static shared memory
            twin = path.with_name(f"twin-{path.name}")  # stays, for the names in reports
            shutil.copyfile(path, twin)
            self.twin = self._open(twin)
        rows = self.unit.contents.kernels[: self.unit.contents.count]
        self.kernels = {row.expression.decode(): i for i, row in enumerate(rows)}
        self.signatures = {row.expression.decode(): row.signature().decode() for row in rows}

    def _open(self, path: Path) -> ctypes._Pointer[_Unit]:
        library = ctypes.CDLL(str(path))
        library.emulator_get_unit.restype = ctypes.POINTER(_Unit)
        return library.emulator_get_unit()

    def run(self, expression: str, launch: Launch, arguments: Sequence[ctypes.c_void_p | int]) -> None:
        """``arguments``: the address of each argument's value."""
        values = (ctypes.c_void_p * len(arguments))(*arguments)
        message = ctypes.create_string_buffer(1200)
        status = self.runtime.emulator_run(
            self.unit, self.twin, self.kernels[expression], ctypes.byref(launch), values, message, len(message)
        )
        if status:
            raise LaunchError(f"{expression}: {message.value.decode(errors='replace')}")


@cache
def load(unit: Unit) -> Loaded:
    return Loaded(unit)
