"""The persistent compilation cache: one folder per user and kind of processor, limited in size, every entry verified.

JAX reads and writes the entries, and trusts them: one that was damaged is a warning in every run, and one that stands
under the name of another program is executed. This module decides where they are stored and how many are kept, and ends
each with a digest of its name and its content, which must fit when the entry is read. In a folder of the user's
(JAX_COMPILATION_CACHE_DIR), which other programs of JAX may share, they are in a folder of their own.
"""

import hashlib
import logging
import platform
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import jax

from stepwise_jax.runtime.files import atomic_write, user_cache

LIMIT_BYTES = 2 << 30
"""Maximum size of the cache; the least recently used entries are removed first."""

_DIGEST_BYTES = 32

_log = logging.getLogger(__name__)


def enable() -> None:
    """Enable the cache, unless the user has disabled it; in a folder of the user's, its entries are verified, too.

    Call it before the first compilation of the process; a second call changes nothing. If the folder cannot be used, it
    logs a warning. An object store (JAX_COMPILATION_CACHE_DIR=gs://...) is left to JAX, without digests.
    """
    chosen, enabled = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache  # pyright: ignore
    if not enabled:
        return
    if chosen is None:
        _use_own_folder()
    elif "://" not in chosen:
        # If it cannot be made, the first entry that is read or written says so.
        with suppress(OSError):
            _verified_folder(chosen).mkdir(parents=True, exist_ok=True)
        _verify_entries()


def _use_own_folder() -> None:
    folder = cache_folder()
    if folder is None:
        _log.warning("the compilation cache is disabled: XDG_CACHE_HOME and the home folder are no absolute paths")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean_up(folder, LIMIT_BYTES)
    except OSError as error:
        _log.warning("the compilation cache is disabled: %s: %s", error.filename or folder, error.strerror)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Cache everything: many programs that compile in a moment take seconds together.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    _verify_entries()


def _verify_entries() -> None:
    """Make JAX keep the entries in a `VerifiedCache`."""
    try:
        from jax._src import compilation_cache

        # Not public: where another version of JAX has no such function, it reads and writes entries without a digest.
        assert callable(compilation_cache.get_file_cache)
    except (ImportError, AttributeError):
        return
    compilation_cache.get_file_cache = lambda path: (VerifiedCache(_verified_folder(path)), path)  # pyright: ignore


def _verified_folder(chosen: str) -> Path:
    """The folder of our entries: this package's own, or one in the user's, for this kind of processor."""
    own = cache_folder()
    if own is not None and chosen == str(own):
        return own
    return Path(chosen, "stepwise-jax", _machine())


class VerifiedCache:
    """JAX's compiled programs in a folder, each with a digest, under the names that JAX itself would give them.

    An entry that does not fit its digest is removed, and its program is compiled again, as is one that cannot be read.
    Whatever goes wrong is one warning in a process.
    """

    def __init__(self, folder: Path):
        self._folder, self._warned = folder, False

    def get(self, key: str) -> bytes | None:
        """Return the entry of a program; None if there is none, or it is not the one that was written."""
        try:
            stored = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._warn(f"cannot be read ({error.strerror}): programs are compiled again")
        value, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
        if digest == _digest(key, value):
            return value
        _remove([self._path(key)])
        return self._warn("has entries that are damaged or of another version: such programs are compiled again")

    def put(self, key: str, value: bytes) -> None:
        """Write the entry of a program at once: other processes read the folder."""
        try:
            with atomic_write(self._path(key)) as file:
                file.writelines((value, _digest(key, value)))
        except OSError as error:
            self._warn(f"cannot be written ({error.strerror}): programs are compiled again in each run")

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}-cache"

    def _warn(self, problem: str) -> None:
        if not self._warned:
            _log.warning("the compilation cache %s %s", self._folder, problem)
        self._warned = True


def _digest(key: str, value: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + value).digest()


def cache_folder() -> Path | None:
    """Return the user's cache folder for this kind of processor; None if the home folder is unknown.

    A program compiled on one machine may use instructions that another machine with the same home folder lacks.
    """
    cache = user_cache()
    return None if cache is None else cache / "compiled" / _machine()


def _machine() -> str:
    return f"{platform.machine()}-{_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(features.encode()).hexdigest()[:8]


def clean_up(folder: Path, limit: int) -> None:
    """Remove the least recently used entries beyond `limit` bytes."""
    entries = {path: path.stat() for path in folder.glob("*-cache")}
    by_use = sorted(entries, key=lambda path: max(entries[path].st_atime, entries[path].st_mtime), reverse=True)
    _remove(_beyond_limit(by_use, [entries[path].st_size for path in by_use], limit))


def _beyond_limit(paths: list[Path], sizes: list[int], limit: int) -> list[Path]:
    """Return the paths that no longer fit once all paths before them are counted."""
    total, excess = 0, []
    for path, size in zip(paths, sizes, strict=True):
        total += size
        if total > limit:
            excess.append(path)
    return excess


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        # Another process may have removed it already, or it cannot be removed: it is found damaged again.
        with suppress(OSError):
            path.unlink(missing_ok=True)
