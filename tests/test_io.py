"""fastnn.io: safetensors round trips, what a broken file is told, and that a failed write leaves nothing behind."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastnn import io

DTYPES = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]


def state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {f"x.{code}": (rng.standard_normal((3, 5)) * 50).astype(code) for code in DTYPES if code[0] != "u"}
    arrays |= {f"x.{code}": rng.integers(0, 200, (2, 3)).astype(code) for code in DTYPES if code[0] == "u"}
    arrays["empty"] = np.empty((0, 4), np.float32)
    arrays["scalar"] = np.array(3.5)
    arrays["größe"] = np.float32(-0.0).reshape(1)
    arrays["nan"] = np.array([np.nan, np.inf, -np.inf], np.float32)
    return arrays


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert set(a) == set(b)
    for name, x in a.items():
        assert b[name].dtype == x.dtype and b[name].shape == x.shape, name
        assert b[name].tobytes() == x.tobytes(), name


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    io.save(state(), path, {"epoch": "3", "größe": "ü\n"})
    got = io.load(str(path))
    same(state(), got)
    assert io.load_metadata(path) == {"epoch": "3", "größe": "ü\n"}
    for x in got.values():
        assert x.flags.writeable
        x[...] = 0
    same(state(), io.load(path))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_empty_state(tmp_path: Path) -> None:
    io.save({}, tmp_path / "a")
    assert io.load(tmp_path / "a") == {} and io.load_metadata(tmp_path / "a") == {}


def test_strided_foreign_byte_order_and_tensors(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    stored = {"t": x.T, "step": x[::2, ::3], "big": x.astype(">f4"), "tensor": SimpleNamespace(array=x), "np": x[0, 1]}
    io.save(stored, tmp_path / "a")
    got = io.load(tmp_path / "a")
    assert (got["t"] == x.T).all() and (got["step"] == x[::2, ::3]).all()
    assert (got["big"] == x).all() and got["big"].dtype == np.float32
    assert (got["tensor"] == x).all() and got["np"].shape == () and got["np"] == 1


def test_bytes_do_not_depend_on_order_and_match_the_safetensors_package(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    arrays = state()
    io.save(arrays, tmp_path / "a")
    io.save(dict(reversed(arrays.items())), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == package.save(arrays)
    same(arrays, package.load_file(tmp_path / "a"))
    package.save_file(arrays, tmp_path / "c", {"by": "the package"})
    same(arrays, io.load(tmp_path / "c"))
    assert io.load_metadata(tmp_path / "c") == {"by": "the package"}


def test_arrays_are_aligned(tmp_path: Path) -> None:
    io.save({"a": np.zeros(3, np.uint8), "b": np.zeros(3), "c": np.zeros(1, np.float16)}, tmp_path / "a")
    raw = (tmp_path / "a").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    for entry in json.loads(raw[8 : 8 + length]).values():
        assert entry["data_offsets"][0] % {"F64": 8, "F16": 2, "U8": 1}[entry["dtype"]] == 0


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC049, 0x7F80, 0x0001, 0x8000], np.uint16)
    write(tmp_path / "a", {"x": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}, bits.tobytes())
    x = io.load(tmp_path / "a")["x"]
    assert x.dtype == np.float32 and (x.view(np.uint32) == bits.astype(np.uint32) << 16).all()


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ({"x": [1, 2]}, TypeError, "'x' must be an array or a Tensor, got list"),
        ({"x": np.zeros(2, complex)}, TypeError, "'x' has dtype complex128"),
        ({"x": np.array([{}])}, TypeError, "'x' has dtype object"),
        ({1: np.zeros(2)}, TypeError, "names must be strings, got 1"),
        ({"__metadata__": np.zeros(2)}, ValueError, "'__metadata__' is taken"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, bad: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        io.save(bad, tmp_path / "a")
    with pytest.raises(TypeError, match="metadata must map strings to strings, got 'epoch': 3"):
        io.save({}, tmp_path / "a", {"epoch": 3})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def f32(*shape: int, at: int = 0, size: int | None = None, dtype: Any = "F32") -> dict[str, Any]:
    nbytes = 4 * int(np.prod(shape)) if size is None else size
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + nbytes]}


BROKEN: dict[str, tuple[Any, Any, str]] = {
    "no bytes": (b"", b"", "0 bytes"),
    "huge header": ({}, 2**63, "its header claims 9223372036854775808 bytes"),
    "header beyond the end": ({}, 4096, "its header claims 4096 bytes, the file has 2 more"),
    "not an object": (b"[]", b"", "not a JSON object"),
    "bad JSON": (b'{"x": }', b"", "not JSON"),
    "bad UTF-8": (b'{"\xff": 1}', b"", "not JSON"),
    "deep JSON": (b'{"x":' + b"[" * 200_000, b"", "not JSON"),
    "huge number": (b'{"x":' + b"9" * 100_000 + b"}", b"", "corrupt|not JSON|must have dtype"),
    "twice": (b'{"x":{},"x":{}}', b"", "names 'x' twice"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "metadata does not map"),
    "metadata list": ({"__metadata__": ["a"]}, b"", "metadata does not map"),
    "no dtype": ({"x": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4), "'x' must have dtype"),
    "entry": ({"x": 3}, b"", "'x' must have dtype"),
    "dtype": ({"x": f32(1, dtype="F8_E4M3", size=1)}, bytes(1), "'x' has dtype 'F8_E4M3'; fastnn reads"),
    "dtype list": ({"x": f32(1, dtype=["F32"])}, bytes(4), "'x' has dtype"),
    "negative shape": ({"x": f32(-1, size=4)}, bytes(4), r"'x' has the shape \[-1\]"),
    "float shape": ({"x": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, bytes(4), "has the shape"),
    "bool shape": ({"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(4), "has the shape"),
    "65 dimensions": ({"x": f32(*[1] * 65)}, bytes(4), "has the shape"),
    "offsets back": ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4), "has the data_offsets"),
    "three offsets": ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, bytes(4), "data_offsets"),
    "span": ({"x": f32(2, size=4)}, bytes(4), "'x' needs 8 bytes .*span 4"),
    "overflow": ({"x": f32(2**40, 2**40, size=4)}, bytes(4), "'x' needs 4835703278458516698824704 bytes"),
    "absurd and empty": ({"x": f32(0, 2**62, size=0)}, b"", "'x' needs 0 bytes"),
    "overlap": ({"x": f32(2), "y": f32(2, at=4)}, bytes(12), "'y' at byte 4 of the data overlaps 'x', which ends at 8"),
    "gap": (
        {"x": f32(2), "y": f32(2, at=12)},
        bytes(20),
        "'y' at byte 12 of the data leaves a gap after 'x', which ends at 8",
    ),
    "gap first": (
        {"x": f32(2, at=4)},
        bytes(12),
        "'x' at byte 4 of the data leaves a gap after the header, which ends at 0",
    ),
    "truncated": ({"x": f32(2)}, bytes(7), "need 8 bytes, the file holds 7: it is truncated"),
    "trailing": ({"x": f32(2)}, bytes(9), "1 bytes follow its last array"),
    "bool": ({"x": f32(2, size=2, dtype="BOOL")}, b"\x00\x07", "'x' is BOOL but holds"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path: Path, case: str) -> None:
    header, data, words = BROKEN[case]
    path = tmp_path / "w.safetensors"
    if case == "no bytes":
        path.write_bytes(b"")
    elif isinstance(data, int):
        write(path, header, length=data)
    else:
        write(path, header, data)
    with pytest.raises(ValueError, match=words) as caught:
        io.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 500


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    io.save({"w": np.arange(6, dtype=np.float32), "b": np.ones(2, bool)}, tmp_path / "a", {"k": "v"})
    whole = (tmp_path / "a").read_bytes()
    for n in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:n])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            io.load(tmp_path / "b")


def test_files_of_another_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"pickle or zip .*safetensors\.torch\.save_file"):
        io.load(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none"):
        io.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match="is a directory"):
        io.load(tmp_path)


def test_write_atomic(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    io.write_atomic(path, "größe")
    assert path.read_text("utf-8") == "größe"
    (tmp_path / "link").symlink_to(path)
    io.write_atomic(tmp_path / "link", b"new")
    assert path.read_bytes() == b"new" and (tmp_path / "link").is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("fail", ["write", "fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str) -> None:
    path = tmp_path / "a"
    io.save({"x": np.zeros(3)}, path)
    old = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if fail == "write":
        with pytest.raises(KeyboardInterrupt), io.atomic(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt
    else:
        monkeypatch.setattr(*((os, "fsync", full) if fail == "fsync" else (Path, "replace", full)))
        with pytest.raises(OSError, match=f"cannot write {path}: No space left on device"):
            io.save({"x": np.ones(3)}, path)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=r"cannot write .*/none/a: .*/none is not a directory; create it first"):
        io.save({}, tmp_path / "none" / "a")
    with pytest.raises(NotADirectoryError, match="is not a directory"):
        io.save({}, tmp_path / "file" / "a")
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        io.write_atomic(tmp_path, "x")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if not os.access(locked, os.W_OK):  # root may write anywhere
        with pytest.raises(PermissionError, match=r"no permission to write in .*locked"):
            io.save({}, locked / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "locked"]
