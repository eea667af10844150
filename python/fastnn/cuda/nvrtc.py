"""NVRTC through ctypes: CUDA C++ text in, a cubin for one architecture out. It needs no driver and no device.

The library comes with CuPy's extra ``ctk`` or the wheel ``nvidia-cuda-nvrtc`` and is found by ``cuda.pathfinder``,
which CuPy depends on. ``compile`` is the whole of it; cache.py keeps what it gives.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["Compiled", "CompileError", "Resources", "compile", "find", "supported", "version"]

NEWEST_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


class CompileError(RuntimeError):
    """The text was refused; the message holds NVRTC's log."""


@dataclass(frozen=True)
class Resources:
    """What one kernel takes, as ptxas reports it: registers a thread, static shared bytes a block, spilled bytes."""

    registers: int
    shared: int
    spills: int
    stack: int


@dataclass(frozen=True)
class Compiled:
    cubin: bytes
    names: dict[str, str]  # a name expression to the kernel's name in the cubin
    resources: dict[str, Resources]  # by name expression
    log: str


@cache
def find() -> ctypes.CDLL:
    """The library; ImportError where there is none."""
    try:
        return ctypes.CDLL(import_module("cuda.pathfinder").load_nvidia_dynamic_lib("nvrtc").abs_path)
    except Exception as error:  # no pathfinder, or it found nothing: what the loader itself can find is the last try
        reason = str(error)
    for name in NEWEST_NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise ImportError(
        "CUDA kernels are compiled by NVRTC, which is not installed: pip install 'fastnn-kernels[cuda13]' "
        f"(or [cuda12]) ({reason.splitlines()[0] if reason else 'not found'})"
    )


def _check(library: ctypes.CDLL, status: int, what: str) -> None:
    if status:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CompileError(f"{what}: {library.nvrtcGetErrorString(status).decode()}")


@cache
def version() -> str:
    """NVRTC's version, such as "13.0"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(find(), find().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return f"{major.value}.{minor.value}"


@cache
def supported() -> tuple[int, ...]:
    """The architectures that this NVRTC compiles for: 75, 80, ..."""
    count = ctypes.c_int()
    _check(find(), find().nvrtcGetNumSupportedArchs(ctypes.byref(count)), "nvrtcGetNumSupportedArchs")
    archs = (ctypes.c_int * count.value)()
    _check(find(), find().nvrtcGetSupportedArchs(archs), "nvrtcGetSupportedArchs")
    return tuple(archs)


def compile(
    name: str,
    source: str,
    headers: Mapping[str, str],
    expressions: Sequence[str],
    options: Sequence[str],
) -> Compiled:
    """Compile ``source``, which may include the ``headers`` by name, for the kernels that ``expressions`` name.

    Raises CompileError with the log where the text is wrong, ImportError without NVRTC.
    """
    library = find()
    program = ctypes.c_void_p()
    texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
    names = (ctypes.c_char_p * len(headers))(*(header.encode() for header in headers))
    status = library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names
    )
    _check(library, status, f"nvrtcCreateProgram({name})")
    try:
        for expression in expressions:
            status = library.nvrtcAddNameExpression(program, expression.encode())
            _check(library, status, f"{name}: name expression {expression!r}")
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), arguments)
        log = _bytes(library, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if status:
            raise CompileError(f"{name} does not compile with {' '.join(options)} (NVRTC {version()}):\n{log}")
        lowered = {}
        for expression in expressions:
            found = ctypes.c_char_p()
            status = library.nvrtcGetLoweredName(program, expression.encode(), ctypes.byref(found))
            _check(library, status, f"{name}: the name of {expression!r}")
            lowered[expression] = (found.value or b"").decode()
        cubin = _bytes(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    used = parse_resources(log)
    return Compiled(cubin, lowered, {e: used[n] for e, n in lowered.items() if n in used}, log)


def _bytes(library: ctypes.CDLL, program: Any, content: str) -> bytes:
    """``nvrtcGet<content>``, sized by ``nvrtcGet<content>Size``."""
    size = ctypes.c_size_t()
    name = f"nvrtcGet{content}"
    _check(library, getattr(library, f"{name}Size")(program, ctypes.byref(size)), f"{name}Size")
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, name)(program, buffer), name)
    return buffer.raw


_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def parse_resources(log: str) -> dict[str, Resources]:
    """What ``--ptxas-options=-v`` tells of each kernel, by its name in the cubin."""
    found: dict[str, Resources] = {}
    kernel, spills, stack = "", 0, 0
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernel, spills, stack = entry[1], 0, 0
        elif spilled := _SPILLS.search(line):
            stack, spills = int(spilled[1]), int(spilled[2]) + int(spilled[3])
        elif (registers := _REGISTERS.search(line)) and kernel:
            shared = _SHARED.search(line)
            found[kernel] = Resources(int(registers[1]), int(shared[1]) if shared else 0, spills, stack)
    return found
