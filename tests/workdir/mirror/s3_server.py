"""A server of the test's own that speaks S3."""

import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """The address of a server of its own that speaks S3, with a bucket."""
    if find_spec("moto") is None or find_spec("s3fs") is None:
        pytest.skip("needs moto[server] and s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path / "server.log").open("wb")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "made",
        "AWS_SECRET_ACCESS_KEY": "up",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs  # pyright: ignore[reportMissingImports]

    # fsspec remembers file systems, and with them the address of an earlier test's server.
    s3fs.S3FileSystem.clear_instance_cache()

    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
                break
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        yield "s3://bucket/run"
    finally:
        server.kill()
        server.wait()
        log.close()
