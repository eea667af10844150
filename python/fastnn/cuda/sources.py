"""The text of the kernels: csrc/cuda/*.cu with what they include, and the signatures of their ``__global__`` functions.

Installed as package data in fastnn/csrc; in the tree, csrc/ beside python/. Signatures are read from the text, so that
launch.py can check and cast every argument; a signature that this file cannot read is refused by the compile tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Parameter", "Signature", "expression_parts", "folder", "signature", "with_includes"]

_PACKAGE = Path(__file__).parents[1]
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_NESTED = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"  # anything with balanced parentheses, two deep
_KERNEL = re.compile(
    r"(?:template\s*<(?P<template>[^(){};]*)>\s*)?__global__\s+"
    rf"(?:__launch_bounds__\s*\({_NESTED}\)\s*)?void\s+(?:__launch_bounds__\s*\({_NESTED}\)\s*)?"
    r"(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)"
)
_PARAMETER = re.compile(r"(?P<const>const\s+)?(?P<type>[\w ]+?)\s*(?P<pointer>\*?)\s*(?P<name>\w+)$")
_STRUCT = re.compile(r"struct\s+(\w+)\s*\{([^{}()]*)\}")
_SCALARS = {
    "bool": "bool",
    "int8_t": "int8",
    "uint8_t": "uint8",
    "unsigned char": "uint8",
    "int16_t": "int16",
    "uint16_t": "uint16",
    "int": "int32",
    "int32_t": "int32",
    "unsigned": "uint32",
    "unsigned int": "uint32",
    "uint32_t": "uint32",
    "int64_t": "int64",
    "long long": "int64",
    "uint64_t": "uint64",
    "unsigned long long": "uint64",
    "float": "float32",
    "double": "float64",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: a pointer to numbers of ``dtype``, a number, or a struct (a dtype with fields)."""

    name: str
    dtype: np.dtype[Any]
    pointer: bool
    const: bool


Signature = tuple[Parameter, ...]


@cache
def folder() -> Path:
    """Where csrc/ is: beside the installed modules, else in the tree."""
    for place in (_PACKAGE / "csrc", _PACKAGE.parents[1] / "csrc"):
        if (place / "formulas.h").is_file():
            return place
    raise FileNotFoundError(
        f"the text of the CUDA kernels is missing: neither {_PACKAGE / 'csrc'} nor {_PACKAGE.parents[1] / 'csrc'} has "
        "it; reinstall fastnn-kernels"
    )


@cache
def with_includes(file: str) -> dict[str, str]:
    """The text of ``file`` (a name in csrc/cuda, or formulas.h) and of all that it includes, itself first."""
    path = folder() / "cuda" / file
    text = (path if path.is_file() else folder() / file).read_text(encoding="utf-8")
    found = {file: text}
    for name in _INCLUDE.findall(_COMMENT.sub("", text)):
        if not name.startswith("emulator/"):  # the second body of ptx.cuh
            for other, content in with_includes(name).items():
                found.setdefault(other, content)
    return found


def expression_parts(expression: str) -> tuple[str, list[str]]:
    """``"map<float, relu_of<float>>"`` as its name and the list of its template arguments."""
    name, _, rest = expression.partition("<")
    arguments, depth, begin = [], 0, 0
    rest = rest.strip().removesuffix(">")
    for i, letter in enumerate(rest):
        depth += (letter in "<(") - (letter in ">)")
        if letter == "," and depth == 0:
            arguments.append(rest[begin:i].strip())
            begin = i + 1
    if rest:
        arguments.append(rest[begin:].strip())
    return name.strip(), arguments


@cache
def _clean(file: str) -> str:
    return "\n".join(_COMMENT.sub(" ", text) for text in with_includes(file).values())


@cache
def _kernels(file: str) -> dict[str, tuple[str, str]]:
    """The template and parameter lists, as text, of every ``__global__`` function of a file and its includes."""
    found = _KERNEL.finditer(_clean(file))
    return {m["name"]: (m["template"] or "", " ".join(m["parameters"].split())) for m in found}


@cache
def signature(file: str, expression: str) -> Signature:
    """The parameters of the kernel that ``expression`` names, with the template's types put in."""
    name, arguments = expression_parts(expression)
    if name not in _kernels(file):
        raise ValueError(f"{file} has no kernel {name}: no __global__ function that can be read from its text")
    template, parameters = _kernels(file)[name]
    types = {}
    for declared, argument in zip(template.split(","), arguments):
        kind, *label = declared.split()
        if kind in ("class", "typename") and label:
            types[label[0]] = argument
    return tuple(_parameter(file, name, text, types) for text in parameters.split(",") if text.strip())


def _parameter(file: str, kernel: str, text: str, types: dict[str, str]) -> Parameter:
    words = text.replace("__restrict__", " ").replace("__grid_constant__", " ").split()
    match = _PARAMETER.match(" ".join(words).replace("* ", "*"))
    if match is None:
        raise ValueError(f"{file}: cannot read parameter '{text.strip()}' of {kernel}")
    kind = types.get(match["type"], match["type"])
    if kind in _SCALARS:
        dtype = np.dtype(_SCALARS[kind])
    elif kind in _structs(file) and not match["pointer"]:
        dtype = _structs(file)[kind]
    else:
        raise ValueError(f"{file}: parameter '{text.strip()}' of {kernel} has a type that launch cannot pass: {kind}")
    return Parameter(match["name"], dtype, bool(match["pointer"]), bool(match["const"]))


@cache
def _structs(file: str) -> dict[str, np.dtype[Any]]:
    """The structs of plain numbers, as aligned dtypes; those of anything else are no kernel's parameter."""
    found = {}
    for name, body in _STRUCT.findall(_clean(file)):
        fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
        for declaration in filter(None, map(str.strip, body.split(";"))):
            match = re.match(r"([\w ]+?)\s+(\w+(?:\[\d+\])?(?:\s*,\s*\w+(?:\[\d+\])?)*)$", declaration)
            if match is None or match[1] not in _SCALARS:
                break
            for label in match[2].split(","):
                field, _, size = label.strip().partition("[")
                kind = _SCALARS[match[1]]
                fields.append((field, kind, (int(size[:-1]),)) if size else (field, kind))
        else:
            found[name] = np.dtype(fields, align=True)
    return found
