"""Compiled programs kept from run to run: one folder per user and kind of processor, bounded, mended after a crash.

JAX keeps and finds the programs; what it leaves open is decided here: where they lie, how many of them stay, and that
an entry whose writing was cut short is taken away, which JAX would else complain about for ever.
"""

import hashlib
import importlib.util
import logging
import os
import platform
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import jax

LIMIT_BYTES = 2 << 30
"""What the kept programs may take; those that were used longest ago go first."""

SETTLED_SECONDS = 60.0
"""An entry as old as this is no longer being written by another process."""

_CHECKED = ".checked"

_ZSTANDARD = b"\x28\xb5\x2f\xfd"

_log = logging.getLogger(__name__)


def enable() -> None:
    """Keeps compiled programs from now on, unless the user has chosen a place (JAX_COMPILATION_CACHE_DIR) or none.

    It has to come before the first compilation of the process. A folder that cannot be used is told and done without.
    """
    chosen, wanted = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache  # pyright: ignore
    if chosen is not None or not wanted:
        return
    folder = place()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean_up(folder, LIMIT_BYTES, time.time())
    except OSError as error:
        _log.warning("compiled programs are not kept: %s: %s", error.filename or folder, error.strerror)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Everything is kept: the many programs of a moment each are seconds together.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def place() -> Path:
    """The user's folder for this kind of processor, under $XDG_CACHE_HOME or ~/.cache.

    A program compiled for one processor may hold instructions that another with the same home folder has not.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "stepwise-jax" / "compiled" / f"{platform.machine()}-{_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def clean_up(folder: Path, limit: int, now: float) -> None:
    """Removes entries that are cut short, and the least recently used beyond `limit` bytes.

    Args:
      folder: what JAX keeps programs in.
      limit: bytes that may stay.
      now: seconds since 1970; entries of the last `SETTLED_SECONDS` are not judged yet.
    """
    settled = now - SETTLED_SECONDS
    checked = _modified(folder / _CHECKED)
    entries = {path: path.stat() for path in folder.glob("*-cache")}
    fresh = [path for path, stat in entries.items() if checked < stat.st_mtime <= settled]
    torn = {path for path in fresh if not is_whole(path.read_bytes())}
    whole = {path: stat for path, stat in entries.items() if path not in torn}
    by_use = sorted(whole, key=lambda path: max(whole[path].st_atime, whole[path].st_mtime), reverse=True)
    _remove([*torn, *_beyond(by_use, [whole[path].st_size for path in by_use], limit)])
    (folder / _CHECKED).touch()
    os.utime(folder / _CHECKED, (settled, settled))


def _beyond(paths: list[Path], sizes: list[int], limit: int) -> list[Path]:
    """Those of `paths` that do not fit any more when the ones before them have taken their bytes."""
    taken, left = 0, []
    for path, size in zip(paths, sizes, strict=True):
        taken += size
        if taken > limit:
            left.append(path)
    return left


def is_whole(entry: bytes) -> bool:
    """Whether a kept program can be unpacked, which its checksum decides."""
    try:
        _unpack(entry)
    except Exception:
        return False
    return True


def _unpack(entry: bytes) -> None:
    # JAX packs with zstandard where Python or a library has it, else with zlib.
    if not entry.startswith(_ZSTANDARD):
        zlib.decompress(entry)
    elif importlib.util.find_spec("compression") is not None:
        importlib.import_module("compression.zstd").decompress(entry)
    elif importlib.util.find_spec("zstandard") is not None:
        importlib.import_module("zstandard").ZstdDecompressor().decompress(entry)


def _modified(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        # Another process may have been quicker.
        path.unlink(missing_ok=True)
