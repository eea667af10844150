"""Compiled kernels on disk: a cubin and what is known of it, under the hash of everything it was made from.

The folder is ``FASTNN_CACHE``, else ``$XDG_CACHE_HOME/fastnn``, else ``~/.cache/fastnn``; where it cannot be written, a
temporary one of this process. A broken entry counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from . import nvrtc
from .nvrtc import Resources

__all__ = ["Entry", "build", "folder"]


@dataclass(frozen=True)
class Entry:
    path: Path  # the cubin
    names: dict[str, str]  # a name expression to the kernel's name in the cubin
    resources: dict[str, Resources]  # by name expression


def folder() -> Path:
    """Where compiled kernels are kept."""
    chosen = os.environ.get("FASTNN_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = (Path(chosen).expanduser() if chosen else Path(base) / "fastnn") / "cuda"
    try:
        place.mkdir(parents=True, exist_ok=True)
        return place if os.access(place, os.W_OK) else Path(_temporary().name)
    except OSError:
        return Path(_temporary().name)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fastnn-cuda-")


def build(
    name: str, source: str, headers: Mapping[str, str], expressions: Sequence[str], options: Sequence[str]
) -> Entry:
    """The compiled kernels, from disk or from NVRTC. ``options`` hold the architecture."""
    made_from = json.dumps([nvrtc.version(), name, source, dict(headers), list(expressions), list(options)])
    stem = folder() / f"{Path(name).stem}-{hashlib.sha256(made_from.encode()).hexdigest()}"
    entry = _read(stem)
    if entry is None:
        compiled = nvrtc.compile(name, source, headers, expressions, options)
        about = {
            "sha256": hashlib.sha256(compiled.cubin).hexdigest(),
            "names": compiled.names,
            "resources": {e: asdict(r) for e, r in compiled.resources.items()},
        }
        _write(stem.with_name(stem.name + ".cubin"), compiled.cubin)
        _write(stem.with_name(stem.name + ".json"), json.dumps(about).encode())
        entry = Entry(stem.with_name(stem.name + ".cubin"), compiled.names, compiled.resources)
    return entry


def _read(stem: Path) -> Entry | None:
    cubin = stem.with_name(stem.name + ".cubin")
    try:
        about = json.loads(stem.with_name(stem.name + ".json").read_bytes())
        if hashlib.sha256(cubin.read_bytes()).hexdigest() != about["sha256"]:
            return None
        return Entry(cubin, dict(about["names"]), {e: Resources(**r) for e, r in about["resources"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, content: bytes) -> None:
    """To a temporary file that is renamed: a reader sees the whole or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem[:40])
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
