"""Arrays to and from files: safetensors (a JSON header, then raw bytes), and whole-or-nothing writing of any file.

No pickle: reading a file never runs code from it. Everything a header claims is checked against the file's size before
an array is made. The format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .kernels._backend import device_of, here, moved
from .kernels._check import plain

__all__ = ["load", "load_metadata", "save", "write_atomic"]

Array = NDArray[Any]

# Safetensors' names, in the order in which that package lays out arrays: the last first, so that every array is aligned
# to its own element and the same arrays give the same bytes from both packages.
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "BF16": "<u2",
    "I32": "<i4", "U32": "<u4", "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8",
}  # fmt: skip
_CODES = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}
_RANK = {name: rank for rank, name in enumerate(_DTYPES)}
_HEADER_LIMIT = 100_000_000  # bytes, as the safetensors package has it: a corrupt length must not become an allocation


def save(state: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays to a safetensors file; the file appears whole or not at all.

    ``state`` maps names to arrays or Tensors (``model.state_dict()``) of float64, float32, float16, integers or bool;
    ``metadata`` maps strings to strings. The same arrays give the same bytes, in whatever order they come. The
    safetensors package reads the file, so PyTorch, JAX and MLX do too. Errors: TypeError for what cannot be stored,
    OSError for where.

    >>> fastnn.save(model.state_dict(), "lenet.safetensors")
    >>> model.load_state_dict(fastnn.load("lenet.safetensors"))
    """
    import json

    if not isinstance(state, Mapping):
        raise TypeError(f"save: expected a dict of names to arrays, got {type(state).__name__}")
    arrays: list[tuple[str, str, Array]] = []
    for name, value in state.items():
        if not isinstance(name, str):
            raise TypeError(f"save: names must be strings, got {name!r}")
        if name == "__metadata__":
            raise ValueError("save: the name '__metadata__' is taken by the file format; rename the array")
        arrays.append((name, *_storable(name, value)))
    arrays.sort(key=lambda item: (-_RANK[item[1]], item[0]))

    header: dict[str, Any] = {}
    if metadata:
        for key, value in metadata.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError(f"save: metadata must map strings to strings, got {key!r}: {value!r}; use json.dumps")
        header["__metadata__"] = {key: metadata[key] for key in sorted(metadata)}
    end = 0
    for name, dtype, x in arrays:
        begin, end = end, end + x.nbytes
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        raise ValueError(f"save: the names and metadata take {len(text)} bytes, more than the format's {_HEADER_LIMIT}")

    with atomic(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, _, x in arrays:
            file.write(x.reshape(-1).view(np.uint8).data)


def _storable(name: str, value: Any) -> tuple[str, Array]:
    """The format's name of the dtype, and the value as a C-contiguous little-endian NumPy array."""
    x = getattr(value, "array", value)
    if not isinstance(x, (np.ndarray, np.generic)):
        if device_of(x) is None:
            raise TypeError(f"save: '{name}' must be an array or a Tensor, got {type(value).__name__}")
        x = x.get()
    x = plain("save", name, x)
    dtype = _CODES.get(x.dtype.newbyteorder("<"))
    if dtype is None:
        raise TypeError(f"save: '{name}' has dtype {x.dtype}, which safetensors does not store; convert it first")
    return dtype, np.asarray(x, dtype=_DTYPES[dtype], order="C")


def load(path: str | os.PathLike[str], device: str | None = None) -> dict[str, Array]:
    """Read a safetensors file: a dict of names to fresh, writable arrays, in the order in which the file names them.

    They are NumPy's, or CuPy's with ``device="cuda"``. bfloat16 arrays come as float32 (exact). Errors: ValueError that
    names the file and what is wrong with it (truncated, overlapping, unknown dtype, not a safetensors file, ...);
    FileNotFoundError.
    """
    there = here("load", device)
    with _open(path) as file:
        layout, _ = _read_header(file, path)
        state: dict[str, Array] = dict.fromkeys(layout, np.empty(0))  # the header's order; each is replaced below
        for name, (dtype, shape, begin, _) in sorted(layout.items(), key=lambda item: item[1][2:]):
            x = np.empty(shape, np.dtype(_DTYPES[dtype]))
            if x.nbytes and file.readinto(x.reshape(-1).view(np.uint8).data) != x.nbytes:  # type: ignore[attr-defined]
                raise _broken(path, f"it ended inside '{name}' (at byte {begin} of the data) while it was read")
            if dtype == "BF16":
                x = (x.astype(np.uint32) << 16).view(np.float32)
            elif dtype == "BOOL" and x.size and x.view(np.uint8).max() > 1:
                raise _broken(path, f"'{name}' is BOOL but holds bytes other than 0 and 1")
            state[name] = moved(x if sys.byteorder == "little" else x.astype(x.dtype.newbyteorder("=")), there)
    return state


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata (strings by name) of a safetensors file; empty if it has none. Reads the header alone."""
    with _open(path) as file:
        return _read_header(file, path)[1]


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"load: no such file: {os.fspath(path)}") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"load: {os.fspath(path)} is a directory; name a .safetensors file in it") from None


def _broken(path: str | os.PathLike[str], why: str) -> ValueError:
    return ValueError(f"load: {os.fspath(path)} is not a whole safetensors file: {why}")


_Layout = dict[str, tuple[str, tuple[int, ...], int, int]]


def _read_header(file: BinaryIO, path: str | os.PathLike[str]) -> tuple[_Layout, dict[str, str]]:
    """Name -> (dtype, shape, begin, end), and the metadata; everything checked against the size of the file."""
    import json

    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if start[:4] == b"PK\x03\x04" or start[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise _broken(
            path,
            "it looks like a pickle or zip (a PyTorch .pt or NumPy .npz file); fastnn reads no pickles, as they "
            "can run code: convert it with safetensors.torch.save_file",
        )
    if len(start) < 8:
        raise _broken(path, f"it has {size} bytes, fewer than the 8 of the header's length")
    length = int.from_bytes(start, "little")
    if length > _HEADER_LIMIT or length > size - 8:
        raise _broken(
            path, f"its header claims {length} bytes, the file has {size - 8} more; it is truncated or corrupt"
        )

    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen:
                twice.append(name)
            seen[name] = value
        return seen

    text = file.read(length)
    if not text.startswith(b"{"):
        raise _broken(path, "its header is not a JSON object")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # wrong UTF-8, JSON or numbers; brackets nested without end
        raise _broken(path, f"its header is not JSON ({error})") from None
    if twice:
        raise _broken(path, f"its header names '{twice[0]}' twice")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _broken(path, "its metadata does not map strings to strings")
    layout = {name: _entry(path, name, entry) for name, entry in header.items()}
    _check_packed(path, layout, size - 8 - length)
    return layout, metadata


def _entry(path: str | os.PathLike[str], name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """One array's line of the header, checked by itself."""

    def sizes(value: Any) -> bool:
        return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"'{name}' must have dtype, shape and data_offsets, got {entry!r:.80}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _RANK:
        raise _broken(path, f"'{name}' has dtype {dtype!r:.40}; fastnn reads {', '.join(_DTYPES)}")
    if not sizes(shape) or len(shape) > 32:  # NumPy 1 allows 32 dimensions
        raise _broken(path, f"'{name}' has the shape {shape!r:.80}")
    if not sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(path, f"'{name}' has the data_offsets {offsets!r:.80}")
    elements = 1
    for n in shape:
        elements *= n
    need, have = elements * np.dtype(_DTYPES[dtype]).itemsize, offsets[1] - offsets[0]
    if need != have or sum(shape) >= 2**48:  # an empty array of absurd sizes is one that NumPy cannot make
        raise _broken(path, f"'{name}' needs {need} bytes ({dtype} {tuple(shape)}), its data_offsets span {have}")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _check_packed(path: str | os.PathLike[str], layout: _Layout, available: int) -> None:
    """Raise unless the arrays cover the data exactly: no gap, no overlap, nothing missing, nothing after."""
    at, before = 0, "the header"
    for name, (_, _, begin, end) in sorted(layout.items(), key=lambda item: item[1][2:]):
        if begin != at:
            what = "overlaps" if begin < at else "leaves a gap after"
            raise _broken(path, f"'{name}' at byte {begin} of the data {what} {before}, which ends at {at}")
        at, before = end, f"'{name}'"
    if at > available:
        raise _broken(path, f"its arrays need {at} bytes, the file holds {available}: it is truncated")
    if at < available:
        raise _broken(path, f"{available - at} bytes follow its last array")


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write bytes, or text as UTF-8, to a file that appears whole or not at all; an older file is replaced at once."""
    with atomic(path) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which becomes ``path`` when the block ends well and vanishes when it does not.

    It is a temporary file in the same directory (a rename is atomic within one file system), flushed to the disk before
    the rename, so that even a power cut leaves the old file or the new one. A symbolic link keeps its place: the file
    that it points to is replaced.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a directory; name a file in it")
        file = temporary.open("xb")
    except OSError as error:
        raise _cannot_write(target, error) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise _cannot_write(target, error) from error
        raise
    _sync_directory(target.parent)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Delete the temporary files of processes that were killed while they wrote ``path``, and no other files."""
    import re

    target = Path(os.path.realpath(path))
    temporary = re.compile(re.escape(f".{target.name[:200]}.") + r"[0-9]+-[0-9a-f]{8}\.tmp")
    for entry in target.parent.iterdir():
        if temporary.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def _cannot_write(target: Path, error: OSError) -> OSError:
    """The same kind of error, with the file and the fix in its message."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        why = f"{target.parent} is not a directory; create it first"
    elif isinstance(error, PermissionError):
        why = f"no permission to write in {target.parent}; choose another directory"
    else:
        why = error.strerror or str(error)
    return type(error)(f"cannot write {target}: {why}")


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable, where the system lets a directory be opened and synced."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse; the rename has happened all the same
    finally:
        os.close(descriptor)
