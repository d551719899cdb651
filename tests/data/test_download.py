"""Downloading published files, from a server that the tests start on this machine."""

import dataclasses
import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cifar_files import binary_files
from data_files import quiet, write_archive

import launch
from stepwise_jax.data import disk
from stepwise_jax.data.prepared import download
from stepwise_jax.data.prepared.download import fetch
from stepwise_jax.data.sources import catalog
from stepwise_jax.data.sources.catalog import Download
from stepwise_jax.errors import InputError

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 12_000


@dataclass
class Server:
    """A file on a server, and how the server behaves."""

    content: bytes = CONTENT
    ranges: bool = True
    refuses_ranges: bool = False
    status: int = 200
    at_most: int | None = None
    """Bytes after which a connection is cut."""
    seconds: float = 0.0
    """Between two blocks."""
    lengths: bool = True
    requests: list[str | None] = field(default_factory=list)
    """The Range header of each request."""
    port: int = 0

    def published(self, **changes) -> Download:
        known = Download(
            url=f"http://127.0.0.1:{self.port}/file.bin",
            name="file.bin",
            size=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            preparation_bytes=0,
        )
        return dataclasses.replace(known, **changes)


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requested = self.headers["Range"]
            server.requests.append(requested)
            start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and server.ranges else 0
            if start >= len(server.content) or (requested and server.refuses_ranges):
                self.send_error(416)
                return
            self.send_response(206 if start else server.status)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
            if server.lengths:
                self.send_header("Content-Length", str(len(server.content) - start))
            self.end_headers()
            self._send(server.content[start:][: server.at_most])

        def _send(self, body: bytes) -> None:
            for start in range(0, len(body), 1 << 16):
                try:
                    self.wfile.write(body[start : start + (1 << 16)])
                    self.wfile.flush()
                except ConnectionError:
                    return
                time.sleep(server.seconds)

        def log_message(self, format, *args):
            del format, args

    return Handler


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    server = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(server)) as running:
        server.port = running.server_port
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        running.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_fetched_once_with_progress(server, tmp_path):
    calls = []
    path = fetch(server.published(), tmp_path / "downloads", lambda *call: calls.append(call))
    assert path == tmp_path / "downloads/file.bin"
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "downloads") == ["file.bin"]
    assert calls[0] == (0, 3, "file.bin: downloading, MB")
    assert calls[-1] == (3, 3, "file.bin.part: checking, MB")
    assert fetch(server.published(), tmp_path / "downloads", quiet) == path
    assert server.requests == [None]


def test_a_cut_connection_is_reported_and_resumed(server, tmp_path):
    server.at_most = 1_000_000
    with pytest.raises(InputError, match=r"cannot be downloaded \(.*1,?000,?000.*\): try again, which resumes the dow"):
        fetch(server.published(), tmp_path, quiet)
    assert names(tmp_path) == ["file.bin.part"]
    server.at_most = None
    assert fetch(server.published(), tmp_path, quiet).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000000-"]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1_000_000])
    server.ranges = False
    assert fetch(server.published(), tmp_path, quiet).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000000-"]


def test_a_server_that_refuses_the_range_gets_a_request_for_all(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1_000_000])
    server.refuses_ranges = True
    assert fetch(server.published(), tmp_path, quiet).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000000-", None]


@pytest.mark.parametrize("length", [1_000_000, len(CONTENT), len(CONTENT) + 1])
def test_a_part_of_another_file_is_discarded(server, tmp_path, length):
    (tmp_path / "file.bin.part").write_bytes(b"x" * length)
    assert fetch(server.published(), tmp_path, quiet).read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]


def test_a_damaged_download_is_fetched_again(server, tmp_path):
    path = fetch(server.published(), tmp_path, quiet)
    path.write_bytes(b"damaged")
    assert fetch(server.published(), tmp_path, quiet).read_bytes() == CONTENT


def test_a_checksum_that_differs(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    found, known = hashlib.sha256(server.content).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
    message = rf"file.bin is not the file that was published: its SHA-256 is {found} and must be {known}$"
    with pytest.raises(InputError, match=message):
        fetch(server.published(), tmp_path, quiet)
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [1000, len(CONTENT) + 1000])
def test_a_file_of_another_size_is_not_fetched(server, tmp_path, size):
    server.content = b"x" * size
    with pytest.raises(InputError, match=rf"is not the file that was published: it has {size:,} bytes and must have"):
        fetch(server.published(), tmp_path, quiet)
    assert names(tmp_path) == []


def test_a_file_without_end_is_not_downloaded_further(server, tmp_path):
    server.content, server.lengths = CONTENT * 2, False
    with pytest.raises(InputError, match=r"the server sends more than the file's 3,072,000 bytes"):
        fetch(server.published(), tmp_path, quiet)
    assert not (tmp_path / "file.bin").exists()


@pytest.mark.parametrize("status", [404, 503])
def test_error_status_of_the_server(server, tmp_path, status):
    server.status = status
    with pytest.raises(InputError, match=rf"cannot be downloaded \(the server answers {status} .*give it with --from"):
        fetch(server.published(), tmp_path, quiet)
    assert names(tmp_path) == []


def test_no_server(server, tmp_path):
    with socket.socket() as unused:
        # Bound, so that nobody else takes the port, and not listening.
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.bin"
        with pytest.raises(InputError, match=r"cannot be downloaded \(.*refused"):
            fetch(server.published(url=url), tmp_path, quiet)


def test_a_server_that_falls_silent(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.2)
    server.seconds = 1.0
    with pytest.raises(InputError, match=r"cannot be downloaded \(.*timed out"):
        fetch(server.published(), tmp_path, quiet)


def test_space_is_checked_first(server, tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 << 20}))
    with pytest.raises(InputError, match=r"has 5 MiB free, 11 MiB are needed"):
        fetch(server.published(preparation_bytes=8 << 20), tmp_path, quiet)
    assert server.requests == []


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "downloads").write_text("")
    with pytest.raises(InputError, match=r"data.data_dir: cannot write '.*downloads'"):
        fetch(server.published(), tmp_path / "downloads", quiet)


_FETCH = """
import sys
from pathlib import Path
from stepwise_jax.data.prepared.download import fetch
from stepwise_jax.data.sources.catalog import Download
url, size, sha256, folder = sys.argv[1:]
fetch(Download(url, "file.bin", int(size), sha256, 0), Path(folder), lambda *_: None)
"""


def start(server: Server, folder: Path) -> subprocess.Popen[bytes]:
    known = server.published()
    return subprocess.Popen([sys.executable, "-c", _FETCH, known.url, str(known.size), known.sha256, folder], cwd=ROOT)


def test_killed_fetch_leaves_no_file_and_can_be_resumed(server, tmp_path):
    server.seconds = 0.02
    process = start(server, tmp_path)
    part, deadline = tmp_path / "file.bin.part", time.monotonic() + 60
    while not part.exists() or not part.stat().st_size:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert names(tmp_path) == ["file.bin.part"]
    server.seconds = 0.0
    assert fetch(server.published(), tmp_path, quiet).read_bytes() == CONTENT
    assert server.requests[1].startswith("bytes=")


def test_two_at_once_fetch_once(server, tmp_path):
    server.seconds = 0.005
    processes = [start(server, tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert server.requests == [None]


def test_prepare_fetches_checks_and_stores(server, tmp_path, monkeypatch, capsys):
    archive = write_archive(tmp_path / "a.tar.gz", binary_files("cifar10")).read_bytes()
    server.content = archive
    recipe = catalog.PUBLISHED["cifar10"]
    known = server.published(
        name="cifar-10-binary.tar.gz", size=len(archive), sha256=hashlib.sha256(archive).hexdigest()
    )
    monkeypatch.setitem(catalog.PUBLISHED, "cifar10", dataclasses.replace(recipe, download=known))
    words = ["prepare", "cifar10", "--data-dir", str(tmp_path / "data")]
    assert launch.main(words) == 0
    assert capsys.readouterr().out == "cifar10 1.0.0: 30 training and 8 test images, 10 classes\n"
    assert names(tmp_path / "data") == ["downloads", "stepwise_cifar10"]
    assert launch.main(words) == 0
    assert len(server.requests) == 1


def test_published_figures_are_those_of_tfds():
    import tensorflow_datasets as tfds

    for name, recipe in catalog.PUBLISHED.items():
        if recipe.download is not None:
            lines = Path(tfds.core.tfds_path(f"url_checksums/{name}.txt")).read_text().splitlines()
            url, size, sha256, file = lines[0].split("\t")
            found = recipe.download
            assert (found.url, str(found.size), found.sha256, found.name) == (url, size, sha256, file)
