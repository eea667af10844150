"""Where datasets lie on disk, and the two formats they come in: IDX (MNIST's) and CIFAR-10's binary records.

Counts come from the files. Everything is checked before it is used; each error names the file and the way out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """The directory of datasets: ``root``, or $FASTNN_DATA, or fastnn in $XDG_CACHE_HOME or ~/.cache."""
    if root is None:
        root = os.environ.get("FASTNN_DATA") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fastnn"
    path = Path(root).expanduser()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"the data directory {path} is a file; name the directory that holds the datasets")
    return path


def read_idx(path: Path, ndim: int) -> Array:
    """An IDX file of uint8 (gzip if its name ends in .gz): images with ``ndim`` 3, labels with 1.

    Layout: two zero bytes, 8 (uint8), the number of dimensions, the sizes (big-endian, 4 bytes each), the data.
    """
    import gzip
    import zlib

    packed = path.name.endswith(".gz")
    size = path.stat().st_size
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            head = file.read(4 + 4 * ndim)
            if len(head) >= 4 and head[:4] != bytes([0, 0, 8, ndim]):
                wanted = f"0x{0x800 + ndim:08x} ({'images' if ndim == 3 else 'labels'})"
                raise _broken(path, f"its magic number is 0x{head[:4].hex()}, not {wanted}")
            if len(head) < 4 + 4 * ndim:
                raise _broken(path, f"it ends inside its header ({len(head)} bytes)")
            shape = [int.from_bytes(head[i : i + 4], "big") for i in range(4, len(head), 4)]
            need = 1
            for n in shape:
                need *= n
            # Deflate packs 1,032 bytes into one at most: a larger claim is false, and must not become an allocation.
            have = size * 1032 if packed else size - len(head)
            data = file.read(need + 1) if need <= have else b""
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken(path, f"its gzip data is truncated or damaged ({error})") from None
    if len(data) != need:
        what = "fewer" if len(data) < need else "more"
        raise _broken(path, f"its header promises {need} bytes for {'x'.join(map(str, shape))}, it holds {what}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_cifar(path: Path) -> Array:
    """CIFAR-10's binary records (N, 3073): a label, then the red, green and blue planes of 32x32."""
    size = path.stat().st_size
    if size == 0 or size % 3073:
        raise _broken(path, f"its {size} bytes are not a whole number of 3073-byte records")
    return np.fromfile(path, np.uint8).reshape(-1, 3073)


def _broken(path: Path, why: str) -> ValueError:
    return ValueError(f"{path}: {why}; delete the file and fetch it again")
