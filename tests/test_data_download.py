"""Downloads from servers on this machine that fail in every way: a file that is in place is always the right one."""

from __future__ import annotations

import hashlib
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_data_files import LABELS, archive, write_mnist

import fastnn.data.download
from fastnn.data import CIFAR10, MNIST
from fastnn.data.download import Remote, fetch

DATA = bytes(range(256)) * 4000 + b"end"
FILE = Remote("numbers.bin", len(DATA), hashlib.sha256(DATA).hexdigest())


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` under /; the first part of the path names the way in which it misbehaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {FILE.name: DATA}
        self.requests: list[tuple[str, str | None]] = []

    def url(self, how: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{how}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        _, how, name = self.path.split("/")
        wanted = self.headers.get("Range")
        self.server.requests.append((how, wanted))
        data = self.server.files.get(name, b"")
        if how == "missing" or not data:
            self.send_error(404)
            return
        if how == "broken":
            self.send_error(503)
            return
        if how == "wrong":
            data = bytes(len(data))
        elif how == "short":
            data = data[:5000]
        elif how == "long":
            data = data + b"more"
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and how != "rangeless" else 0
        if start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if how != "unsized":
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if how in ("cut", "cut-once") and (how == "cut" or not start):
            self.wfile.write(data[start : start + 300_000])
        else:
            self.wfile.write(data[start:])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("FASTNN_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(
    "mirrors",
    [
        ["good"],
        ["unsized"],
        ["rangeless"],
        ["cut"],
        ["cut-once"],
        ["missing", "good"],
        ["broken", "missing", "good"],
        ["wrong", "good"],
        ["short", "good"],
        ["long", "good"],
        ["short", "wrong", "good"],
        ["short", "rangeless"],
        ["cut-once", "good"],
    ],
)
def test_one_good_mirror_is_enough(server: Server, tmp_path: Path, mirrors: list[str]) -> None:
    folder = tmp_path / "a" / "b"
    path = fetch(FILE, [server.url(how) for how in mirrors], folder)
    assert path.read_bytes() == DATA and names(folder) == [FILE.name]
    count = len(server.requests)
    assert fetch(FILE, [server.url("missing")], folder) == path and len(server.requests) == count, "cached"


@pytest.mark.parametrize(
    ("mirrors", "words", "left"),
    [
        (["missing"], "HTTP 404 Not Found", 0),
        (["broken", "missing"], "HTTP 503 .*HTTP 404", 0),
        (["wrong"], f"its SHA-256 is [0-9a-f]{{64}}, expected {FILE.sha256}", 0),
        (["short"], "it ended after 5000 of 1024003 bytes", 5000),
        (["long"], "it sends more than the 1024003 bytes", 0),
    ],
)
def test_no_mirror_works(server: Server, tmp_path: Path, mirrors: list[str], words: str, left: int) -> None:
    with pytest.raises(ConnectionError, match=words) as caught:
        fetch(FILE, [server.url(how) for how in mirrors], tmp_path)
    message = str(caught.value)
    assert "\n" not in message and f"put {FILE.name} into {tmp_path} by hand" in message
    assert all(server.url(how) in message for how in mirrors)
    assert not (tmp_path / FILE.name).exists()
    part = tmp_path / f"{FILE.name}.part"
    assert part.stat().st_size == left if left else not part.exists()


def test_refused_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.delenv("FASTNN_OFFLINE", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_address[1]}/"
    with pytest.raises(ConnectionError, match="refused"):
        fetch(FILE, [url], tmp_path)
    assert fetch(FILE, [url, server.url("good")], tmp_path).read_bytes() == DATA


def test_resume_of_an_earlier_part(server: Server, tmp_path: Path) -> None:
    part = tmp_path / f"{FILE.name}.part"
    part.write_bytes(DATA[:777_777])
    fetch(FILE, [server.url("good")], tmp_path)
    assert server.requests == [("good", "bytes=777777-")]
    assert (tmp_path / FILE.name).read_bytes() == DATA and names(tmp_path) == [FILE.name]


@pytest.mark.parametrize("junk", [b"junk", bytes(len(DATA)), bytes(len(DATA) + 7)])
def test_a_part_of_another_file(server: Server, tmp_path: Path, junk: bytes) -> None:
    (tmp_path / f"{FILE.name}.part").write_bytes(junk)
    assert fetch(FILE, [server.url("good")], tmp_path).read_bytes() == DATA
    assert server.requests[-1] == ("good", None), "from the beginning"


def test_a_whole_part_needs_no_network(server: Server, tmp_path: Path) -> None:
    """As a process that was killed before the renaming leaves it."""
    (tmp_path / f"{FILE.name}.part").write_bytes(DATA)
    assert fetch(FILE, [server.url("good")], tmp_path).read_bytes() == DATA and not server.requests


def test_many_at_once(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch(FILE, [server.url("good")], tmp_path))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 6 and paths[0].read_bytes() == DATA and names(tmp_path) == [FILE.name]
    assert len(server.requests) == 1


def test_offline(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("1", "yes"):
        monkeypatch.setenv("FASTNN_OFFLINE", value)
        with pytest.raises(FileNotFoundError, match=f"{tmp_path}/numbers.bin is missing and FASTNN_OFFLINE.*by hand"):
            fetch(FILE, [server.url("good")], tmp_path)
    assert not server.requests and not names(tmp_path)
    monkeypatch.setenv("FASTNN_OFFLINE", "0")
    assert fetch(FILE, [server.url("good")], tmp_path).exists()


def test_places_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/MNIST/numbers.bin"):
        fetch(FILE, [server.url("good")], tmp_path / "file" / "MNIST")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if not os.access(locked, os.W_OK):  # root may write anywhere
        with pytest.raises(PermissionError, match=r"no permission to write in .*FASTNN_DATA"):
            fetch(FILE, [server.url("good")], locked)
    assert not server.requests


def test_progress_is_for_terminals(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(FILE, [server.url("good")], tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fetch(FILE, [server.url("good")], tmp_path / "terminal")
    out, err = capsys.readouterr()
    assert out == "" and "\rnumbers.bin  1.0 of 1.0 MB" in err and "MB/s" in err and err.endswith("\n")


def test_mnist_from_a_mirror(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "site")
    files = dict(MNIST.files)
    for key in ("train-images", "train-labels"):
        data = (tmp_path / "site" / files[key].name).read_bytes()
        server.files[files[key].name] = data
        files[key] = Remote(files[key].name, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(MNIST, "files", files)
    monkeypatch.setattr(MNIST, "mirrors", [server.url("missing"), server.url("good")])
    data = MNIST(tmp_path / "data")
    assert (data.labels == LABELS).all()
    assert names(tmp_path / "data/MNIST/raw") == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    count = len(server.requests)
    assert len(MNIST(tmp_path / "data")) == 12 and len(server.requests) == count


def test_cifar_from_a_mirror(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(tmp_path / "site.tar.gz").read_bytes()
    server.files["cifar-10-binary.tar.gz"] = data
    remote = Remote("cifar-10-binary.tar.gz", len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(CIFAR10, "archive", remote)
    monkeypatch.setattr(CIFAR10, "mirrors", [server.url("cut")])
    assert len(CIFAR10(tmp_path / "data")) == 50
    assert names(tmp_path / "data") == ["cifar-10-batches-bin"], "the archive goes, what was in it stays"
    count = len(server.requests)
    assert len(CIFAR10(tmp_path / "data", train=False)) == 10 and len(server.requests) == count


def test_nothing_of_the_network_is_imported_before_it_is_used() -> None:
    import subprocess

    code = (
        "import sys, fastnn.data; fastnn.data.digits();"
        "heavy = {'urllib.request', 'http.client', 'ssl', 'tarfile', 'concurrent.futures'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(fastnn.data.download.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]", out.stdout
