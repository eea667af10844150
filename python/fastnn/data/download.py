"""Fetching one file from whichever mirror works: resumed, checked by size and SHA-256, and in place only when whole.

What is on the way lies beside the target as NAME.part; a file under its own name has passed the check. The network is
touched nowhere else in fastnn, and not at all where FASTNN_OFFLINE is set.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["Remote", "fetch", "offline"]

_ATTEMPTS = 5  # at one mirror, as long as each brings the file further
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18


class Remote(NamedTuple):
    """What a file must be: its name at the mirrors, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


def offline() -> bool:
    """Whether FASTNN_OFFLINE forbids the network."""
    return os.environ.get("FASTNN_OFFLINE", "").lower() not in ("", "0", "false", "no")


def fetch(remote: Remote, mirrors: Sequence[str], folder: Path) -> Path:
    """The path of ``remote`` in ``folder``, downloaded first if it is not there.

    The mirrors (URLs that end in "/") are tried in turn. A broken transfer is taken up again where it stopped, in this
    call or a later one; what turns out to be the wrong file is thrown away. Errors: ConnectionError that tells each
    mirror's failure and where to put the file by hand; OSError where ``folder`` cannot be written.
    """
    target = folder / remote.name
    if target.exists():
        return target
    by_hand = f"or put {remote.name} into {folder} by hand"
    if offline():
        raise FileNotFoundError(
            f"{target} is missing and FASTNN_OFFLINE forbids to download it; unset FASTNN_OFFLINE, {by_hand}"
        )
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _part(target) as part:
            if target.exists():  # another process has brought it while this one waited
                return target
            for mirror in mirrors:
                failures.append(f"{mirror}: {_try_mirror(remote, mirror, part)}")
                if _size(part) == remote.size:
                    os.fsync(part.fileno())
                    Path(part.name).replace(target)
                    return target
            if _size(part) == 0:
                Path(part.name).unlink()
    except PermissionError:
        raise PermissionError(
            f"no permission to write in {folder}; give another directory (root=, --data-dir or FASTNN_DATA)"
        ) from None
    except OSError as error:
        raise type(error)(f"cannot write {target}: {error.strerror or error}") from None
    raise ConnectionError(
        f"could not download {remote.name} ({'; '.join(failures)}); try again later to resume, {by_hand}"
    )


def _try_mirror(remote: Remote, mirror: str, part: BinaryIO) -> str:
    """Bring the part as far as this mirror can; a full one has passed the check. Says what went wrong, or nothing."""
    why = ""
    for _ in range(_ATTEMPTS):
        before = _size(part)
        if before < remote.size:
            why = _transfer(remote, mirror + remote.name, part)
        if _size(part) == remote.size:
            wrong = _digest(part)
            if wrong == remote.sha256:
                return ""
            why = f"its SHA-256 is {wrong}, expected {remote.sha256}"
        if _size(part) >= remote.size:
            part.truncate(0)
            if before == 0:  # all of it came from this mirror; otherwise an earlier part may have been the wrong one
                return why
        elif _size(part) <= before:
            return why
    return why


def _transfer(remote: Remote, url: str, part: BinaryIO) -> str:
    """Append to the part what the server sends, from where it ends. Returns what went wrong, or nothing."""
    import http.client
    import urllib.error
    import urllib.request

    start = _size(part)
    headers = {"User-Agent": "fastnn", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code} {error.reason}"
    except (http.client.HTTPException, OSError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    with answer:
        ranged = answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-")
        done = start if ranged else 0  # a server without ranges sends the whole file
        part.truncate(done)
        with _Progress(remote, done) as progress:
            while True:
                try:
                    block = answer.read1(_CHUNK)
                except (http.client.HTTPException, OSError) as error:
                    part.flush()
                    return f"{type(error).__name__} after {done} of {remote.size} bytes"
                if not block:
                    break
                done += len(block)
                if done > remote.size:
                    part.truncate(0)
                    return f"it sends more than the {remote.size} bytes of the file"
                part.write(block)
                progress.show(done)
        part.flush()
    return "" if done == remote.size else f"it ended after {done} of {remote.size} bytes"


def _size(part: BinaryIO) -> int:
    return os.fstat(part.fileno()).st_size


def _digest(part: BinaryIO) -> str:
    import hashlib

    digest = hashlib.sha256()
    part.seek(0)
    while block := part.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def _part(target: Path) -> Iterator[BinaryIO]:
    """TARGET.part, to read and append, held by this process alone where the system has locks; others wait."""
    path = target.with_name(target.name + ".part")
    while True:
        file = path.open("a+b")
        try:
            _lock(file)
            try:
                same = os.path.samestat(path.stat(), os.fstat(file.fileno()))
            except FileNotFoundError:
                same = False
            if same or target.exists():
                yield file
                return
        finally:
            file.close()  # gives the lock back


def _lock(file: object) -> None:
    try:
        import fcntl
    except ImportError:
        return  # Windows: two processes that download at once may spoil each other's part; the check notices
    fcntl.flock(file, fcntl.LOCK_EX)  # type: ignore[arg-type]


class _Progress:
    """One line on a terminal: how much, how fast, how long still. Nothing where stderr is not a terminal."""

    def __init__(self, remote: Remote, start: int) -> None:
        self.remote, self.start = remote, start
        self.began = self.shown = time.monotonic()
        self.on = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def show(self, done: int) -> None:
        now = time.monotonic()
        if not self.on or (now - self.shown < 0.1 and done < self.remote.size):
            return
        self.shown = now
        rate = (done - self.start) / max(now - self.began, 1e-3)
        left = f"{(self.remote.size - done) / rate:.0f} s left" if rate else ""
        total = self.remote.size / 1e6
        line = f"{self.remote.name}  {done / 1e6:.1f} of {total:.1f} MB  {rate / 1e6:.1f} MB/s  {left}"
        print(f"\r{line:<79}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self.on:
            print(file=sys.stderr)
