"""Downloads a published file once: an interrupted download is resumed, and only the published checksum is accepted."""

import hashlib
import http.client
import urllib.error
import urllib.request
from functools import partial
from http import HTTPStatus
from pathlib import Path

from stepwise_jax.data.disk import check_free_space, file_lock, write_error
from stepwise_jax.data.progress import ProgressCallback, ProgressMeter, progress_meter
from stepwise_jax.data.sources.catalog import Download
from stepwise_jax.errors import InputError

_BLOCK = 1 << 20

_MEGABYTE = 1_000_000

_TIMEOUT_SECONDS = 60.0

_FAILURES = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def fetch(download: Download, folder: Path, progress: ProgressCallback) -> Path:
    """Download a file to `folder` unless a complete copy is there already; return its path.

    The file is written as NAME.part and renamed once its checksum matches. An interrupted download is resumed where
    the server allows it, and restarted where it does not. If several processes need the file, one downloads it and the
    others wait.

    Raises:
      InputError: if it cannot be downloaded, is not the published file, or does not fit on the disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = partial(progress, 0, 1, f"{download.name}: waiting for another process to download it")
        with file_lock(folder / f".{download.name}.lock", waiting):
            return _fetch(download, folder, progress)
    except _FAILURES as error:
        raise InputError(
            f"{download.url} cannot be downloaded ({_reason(error)}): try again, which resumes the download, or get "
            "the file by other means and give it with --from"
        ) from error
    except OSError as error:
        raise write_error(folder, error, download.size + download.preparation_bytes) from error


def _fetch(download: Download, folder: Path, progress: ProgressCallback) -> Path:
    path, part = folder / download.name, folder / f"{download.name}.part"
    if path.exists() and _sha256(path, progress) == download.sha256:
        return path
    start = _resumable_bytes(part, download)
    check_free_space(folder, download.size - start + download.preparation_bytes)
    _receive(download, part, start, progress)
    found = _sha256(part, progress)
    if start and found != download.sha256:
        # The resumed part may belong to another file: try once more, from the start.
        _receive(download, part, 0, progress)
        found = _sha256(part, progress)
    if found != download.sha256:
        part.unlink()
        raise _wrong_file_error(download, f"its SHA-256 is {found} and must be {download.sha256}")
    return part.replace(path)


def _resumable_bytes(part: Path, download: Download) -> int:
    """Bytes that are there already; 0 if they are too many to belong to this file."""
    size = part.stat().st_size if part.exists() else 0
    return size if size <= download.size else 0


def _receive(download: Download, part: Path, start: int, progress: ProgressCallback) -> None:
    """Append to `part` what follows its first `start` bytes, or rewrite it if the server sends the whole file."""
    if start == download.size:
        return
    request = urllib.request.Request(download.url, headers={"Range": f"bytes={start}-"} if start else {})
    with _open_url(request) as response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        if resumed and not (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
            raise http.client.HTTPException(f"the server sent {response.headers['Content-Range']}")
        _store(response, part, start if resumed else 0, download, progress)


def _open_url(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
    # The server's file is shorter than ours is already: request the whole of what it has now.
    request.remove_header("Range")
    return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)


def _store(
    response: http.client.HTTPResponse, part: Path, start: int, download: Download, progress: ProgressCallback
) -> None:
    length = response.headers["Content-Length"]
    if length is not None and start + int(length) != download.size:
        raise _wrong_file_error(download, f"it has {start + int(length):,} bytes and must have {download.size:,}")
    task = f"{download.name}: downloading, MB"
    with progress_meter(progress, _megabytes(download.size), task) as meter, part.open("ab") as file:
        file.truncate(start)
        done, reported = start, 0
        while done <= download.size and (block := response.read(_BLOCK)):
            done += file.write(block)
            reported = _report(meter, done, reported)
        if done < download.size:
            raise http.client.HTTPException(f"the connection ended after {done:,} of {download.size:,} bytes")
        if done > download.size:
            raise http.client.HTTPException(f"the server sends more than the file's {download.size:,} bytes")


def _sha256(path: Path, progress: ProgressCallback) -> str:
    digest = hashlib.sha256()
    task = f"{path.name}: checking, MB"
    with progress_meter(progress, _megabytes(path.stat().st_size), task) as meter, path.open("rb") as file:
        done = reported = 0
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            reported = _report(meter, done, reported)
    return digest.hexdigest()


def _wrong_file_error(download: Download, reason: str) -> InputError:
    return InputError(f"{download.url} is not the file that was published: {reason}")


def _megabytes(count: int) -> int:
    return max(1, count // _MEGABYTE)


def _report(meter: ProgressMeter, done: int, reported: int) -> int:
    """Report whole megabytes of `done` bytes; return how many are reported now."""
    megabytes = done // _MEGABYTE
    meter.advance(megabytes - reported)
    return megabytes


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error) or type(error).__name__
