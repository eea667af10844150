"""A checkpoint: nested dicts and lists of arrays and plain values in one safetensors file, written whole or not at all.

The arrays lie in the file under their paths ("model.conv1.weight"); the rest is JSON in its metadata, beside a CRC-32
of everything. ``best.safetensors`` holds a model's arrays under their own names instead, so that any reader of
safetensors can load it. Next: trainer.py, which says what goes in.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import io
from .batches import host_array

__all__ = ["CheckpointError", "load_state", "load_weights", "save_state", "save_weights"]

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
_MARK = "$array"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what is wrong and what to do."""


def save_state(path: PathLike, state: Mapping[str, Any]) -> None:
    """Write everything a run needs to go on; ``state["about"]`` should say what was trained, for people and eval."""
    arrays: dict[str, Array] = {}
    _save(path, arrays, {"kind": "state", "state": _split(dict(state), "", arrays)})


def save_weights(path: PathLike, weights: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write a model's arrays under their own names, with ``about`` in the metadata."""
    _save(path, {name: host_array(value) for name, value in weights.items()}, {"kind": "weights", "about": dict(about)})


def load_state(path: PathLike) -> dict[str, Any]:
    """What ``save_state`` wrote. Errors: FileNotFoundError; CheckpointError for any damage or another kind of file."""
    arrays, content = _load(path)
    if content is None or content.get("kind") != "state":
        raise CheckpointError(
            f"{os.fspath(path)} holds weights, not the state of a run; resume needs the run's last.safetensors"
        )
    try:
        state: dict[str, Any] = _join(content["state"], arrays)
    except KeyError as error:
        raise _damaged(path, f"the array {error} is missing") from None
    return state


def load_weights(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """A model's arrays by name, and what is known about it, from either kind of checkpoint or any safetensors file."""
    arrays, content = _load(path)
    if content is None:
        return arrays, {}
    if content.get("kind") != "state":
        return arrays, dict(content.get("about") or {})
    state = content.get("state") or {}
    return {n[6:]: x for n, x in arrays.items() if n.startswith("model.")}, dict(state.get("about") or {})


def _save(path: PathLike, arrays: dict[str, Array], content: dict[str, Any]) -> None:
    text = json.dumps({"format": 1, **content})
    io.save(arrays, path, metadata={"fastnn": text, "crc32": _checksum(arrays, text)})


def _load(path: PathLike) -> tuple[dict[str, Array], dict[str, Any] | None]:
    try:
        metadata = io.load_metadata(path)
        arrays = io.load(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint {os.fspath(path)}") from None
    except ValueError as error:
        raise _damaged(path, str(error).partition(" safetensors file: ")[2] or str(error)) from None
    if "fastnn" not in metadata:
        return arrays, None
    text = metadata["fastnn"]
    if metadata.get("crc32") != _checksum(arrays, text):
        raise _damaged(path, "its checksum does not match its contents")
    content = json.loads(text)
    if content.get("format") != 1:
        raise CheckpointError(f"{os.fspath(path)} is of a newer format ({content.get('format')}); update fastnn")
    return arrays, content


def _damaged(path: PathLike, why: str) -> CheckpointError:
    other = Path(path).with_name("best.safetensors")
    if Path(path).name == other.name or not other.exists():
        hint = "restore it from a copy, or train again"
    else:
        hint = f"restore it from a copy, start again, or use the weights in {other}"
    return CheckpointError(f"checkpoint {os.fspath(path)} is damaged: {why}; {hint}")


def _checksum(arrays: Mapping[str, Array], text: str) -> str:
    crc = zlib.crc32(text.encode())
    for name in sorted(arrays):
        x = np.ascontiguousarray(arrays[name])
        crc = zlib.crc32(f"{name} {x.dtype.str} {arrays[name].shape}".encode(), crc)
        crc = zlib.crc32(x.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def _split(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    """``value`` as JSON can hold it, its arrays moved into ``arrays``. Keys and tuples keep their types."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _split(item, f"{path}{key}.", arrays) for key, item in value.items()}
        return {"$items": [[_split(k, path, arrays), _split(v, f"{path}{k}.", arrays)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_split(item, f"{path}{i}.", arrays) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if hasattr(value, "shape"):
        name = path[:-1]
        arrays[name] = host_array(value)
        return {_MARK: name}
    raise TypeError(f"a checkpoint cannot hold {path[:-1]!r}: a {type(value).__name__}; use arrays and plain values")


def _join(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, list):
        return [_join(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if _MARK in value:
        return arrays[value[_MARK]]
    if "$items" in value:
        return {_join(k, arrays): _join(v, arrays) for k, v in value["$items"]}
    if "$tuple" in value:
        return tuple(_join(item, arrays) for item in value["$tuple"])
    return {key: _join(item, arrays) for key, item in value.items()}
