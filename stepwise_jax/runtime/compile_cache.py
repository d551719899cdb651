"""The persistent compilation cache: one folder per user and kind of processor, limited in size, repaired after a crash.

JAX reads and writes the entries. This module decides where they are stored and how many are kept, and removes entries
that were only partly written: JAX would warn about them in every run.
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

from stepwise_jax.runtime.files import user_cache

LIMIT_BYTES = 2 << 30
"""Maximum size of the cache; the least recently used entries are removed first."""

MIN_AGE_SECONDS = 60.0
"""No other process still writes an entry that is this old."""

_CHECKED = ".checked"

_ZSTANDARD = b"\x28\xb5\x2f\xfd"

_log = logging.getLogger(__name__)


def enable() -> None:
    """Enable the cache, unless the user has set its folder (JAX_COMPILATION_CACHE_DIR) or disabled it.

    Call it before the first compilation of the process. If the folder cannot be used, it logs a warning.
    """
    chosen, enabled = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache  # pyright: ignore
    if chosen is not None or not enabled:
        return
    folder = cache_folder()
    if folder is None:
        _log.warning("the compilation cache is disabled: XDG_CACHE_HOME and the home folder are no absolute paths")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean_up(folder, LIMIT_BYTES, time.time())
    except OSError as error:
        _log.warning("the compilation cache is disabled: %s: %s", error.filename or folder, error.strerror)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Cache everything: many programs that compile in a moment take seconds together.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def cache_folder() -> Path | None:
    """Return the user's cache folder for this kind of processor; None if the home folder is unknown.

    A program compiled on one machine may use instructions that another machine with the same home folder lacks.
    """
    cache = user_cache()
    return None if cache is None else cache / "compiled" / f"{platform.machine()}-{_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(features.encode()).hexdigest()[:8]


def clean_up(folder: Path, limit: int, now: float) -> None:
    """Remove truncated entries, and the least recently used ones beyond `limit` bytes.

    Args:
      folder: the cache folder.
      limit: the bytes to keep.
      now: seconds since 1970; entries of the last `MIN_AGE_SECONDS` are not checked yet.
    """
    finished = now - MIN_AGE_SECONDS
    checked = _modified(folder / _CHECKED)
    entries = {path: path.stat() for path in folder.glob("*-cache")}
    unchecked = [path for path, stat in entries.items() if checked < stat.st_mtime <= finished]
    truncated = {path for path in unchecked if not is_intact(path.read_bytes())}
    intact = {path: stat for path, stat in entries.items() if path not in truncated}
    by_use = sorted(intact, key=lambda path: max(intact[path].st_atime, intact[path].st_mtime), reverse=True)
    _remove([*truncated, *_beyond_limit(by_use, [intact[path].st_size for path in by_use], limit)])
    (folder / _CHECKED).touch()
    os.utime(folder / _CHECKED, (finished, finished))


def _beyond_limit(paths: list[Path], sizes: list[int], limit: int) -> list[Path]:
    """Return the paths that no longer fit once all paths before them are counted."""
    total, excess = 0, []
    for path, size in zip(paths, sizes, strict=True):
        total += size
        if total > limit:
            excess.append(path)
    return excess


def is_intact(entry: bytes) -> bool:
    """Return whether an entry decompresses, which its checksum verifies."""
    try:
        _decompress(entry)
    except Exception:
        return False
    return True


def _decompress(entry: bytes) -> None:
    # JAX compresses with zstandard if Python or a library has it, else with zlib.
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
        # Another process may have removed it already.
        path.unlink(missing_ok=True)
