"""Fetches a published file once: resumed where it stopped, and taken only if its checksum is the published one."""

import hashlib
import http.client
import urllib.error
import urllib.request
from functools import partial
from http import HTTPStatus
from pathlib import Path

from stepwise_jax.data.disk import check_room, locked, write_error
from stepwise_jax.data.progress import Progress, ProgressMeter, progress_meter
from stepwise_jax.data.sources.catalog import Download
from stepwise_jax.errors import InputError

_BLOCK = 1 << 20

_MEGABYTE = 1_000_000

_SECONDS = 60.0

_FAILURES = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def fetch(download: Download, folder: Path, progress: Progress) -> Path:
    """The file in `folder`, fetched unless it is there already and whole.

    It is written as NAME.part and renamed when its checksum fits. What an interrupted fetch left is gone on with where
    the server can, and begun anew where not. Of several processes one fetches and the others wait.

    Raises:
      InputError: if it cannot be fetched, is not what was published, or finds no room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = partial(progress, 0, 1, f"{download.name}: another process fetches it")
        with locked(folder / f".{download.name}.lock", waiting):
            return _fetch(download, folder, progress)
    except _FAILURES as error:
        raise InputError(
            f"{download.url} cannot be fetched ({_reason(error)}): try again, which goes on where it stopped, or get "
            "the file by other means and give it with --from"
        ) from error
    except OSError as error:
        raise write_error(folder, error, download.size + download.room) from error


def _fetch(download: Download, folder: Path, progress: Progress) -> Path:
    path, part = folder / download.name, folder / f"{download.name}.part"
    if path.exists() and _sha256(path, progress) == download.sha256:
        return path
    begun = _begun(part, download)
    check_room(folder, download.size - begun + download.room)
    _receive(download, part, begun, progress)
    found = _sha256(part, progress)
    if begun and found != download.sha256:
        # What was there already may be of another file: once more, from the start.
        _receive(download, part, 0, progress)
        found = _sha256(part, progress)
    if found != download.sha256:
        part.unlink()
        raise _other_file(download, f"its SHA-256 is {found} and must be {download.sha256}")
    return part.replace(path)


def _begun(part: Path, download: Download) -> int:
    """Bytes that are there already; 0 if they are too many to be of this file."""
    size = part.stat().st_size if part.exists() else 0
    return size if size <= download.size else 0


def _receive(download: Download, part: Path, begun: int, progress: Progress) -> None:
    """Adds to `part` what follows its first `begun` bytes, or writes it anew if the server sends the whole."""
    if begun == download.size:
        return
    request = urllib.request.Request(download.url, headers={"Range": f"bytes={begun}-"} if begun else {})
    with _answer(request) as response:
        went_on = response.status == HTTPStatus.PARTIAL_CONTENT
        if went_on and not (response.headers["Content-Range"] or "").startswith(f"bytes {begun}-"):
            raise http.client.HTTPException(f"the server sent {response.headers['Content-Range']}")
        _store(response, part, begun if went_on else 0, download, progress)


def _answer(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
    # The server's file ends before ours does: what it has now is asked for whole.
    request.remove_header("Range")
    return urllib.request.urlopen(request, timeout=_SECONDS)


def _store(response: http.client.HTTPResponse, part: Path, begun: int, download: Download, progress: Progress) -> None:
    coming = response.headers["Content-Length"]
    if coming is not None and begun + int(coming) != download.size:
        raise _other_file(download, f"it has {begun + int(coming):,} bytes and must have {download.size:,}")
    what = f"{download.name}: fetching, MB"
    with progress_meter(progress, _megabytes(download.size), what) as meter, part.open("ab") as file:
        file.truncate(begun)
        done, told = begun, 0
        while done <= download.size and (block := response.read(_BLOCK)):
            done += file.write(block)
            told = _tell(meter, done, told)
        if done < download.size:
            raise http.client.HTTPException(f"the connection ended after {done:,} of {download.size:,} bytes")
        if done > download.size:
            raise http.client.HTTPException(f"the server sends more than the file's {download.size:,} bytes")


def _sha256(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    what = f"{path.name}: checking, MB"
    with progress_meter(progress, _megabytes(path.stat().st_size), what) as meter, path.open("rb") as file:
        done = told = 0
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            told = _tell(meter, done, told)
    return digest.hexdigest()


def _other_file(download: Download, why: str) -> InputError:
    return InputError(f"{download.url} is not the file that was published: {why}")


def _megabytes(count: int) -> int:
    return max(1, count // _MEGABYTE)


def _tell(meter: ProgressMeter, done: int, told: int) -> int:
    """Reports whole megabytes; how many are reported."""
    megabytes = done // _MEGABYTE
    meter.advance(megabytes - told)
    return megabytes


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error) or type(error).__name__
