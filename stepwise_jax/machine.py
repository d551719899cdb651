"""What a measurement needs to know of the machine: its devices, its versions, the memory that is left."""

import os
from importlib.metadata import version
from typing import Any

import jax

_MOST_TOLD = 160


class NoRoomError(Exception):
    """A program needs more memory than the machine has left."""


def describe() -> dict[str, Any]:
    """`{"device", "devices", "versions"}` of this process."""
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax")}
    return {"device": jax.devices()[0].device_kind, "devices": jax.device_count(), "versions": versions}


def device_memory() -> tuple[int, int] | None:
    """Bytes in use on the first device now, and at most so far; None where the device does not count them."""
    counted = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" not in counted:
        return None
    return counted["bytes_in_use"], counted["peak_bytes_in_use"]


def peak_since(before: tuple[int, int] | None) -> int | None:
    """The most bytes that came on top of what `device_memory` said before.

    None where the device does not count, or where the peak is an earlier one: it cannot be set back.
    """
    now = device_memory()
    if before is None or now is None or now[1] <= before[1]:
        return None
    return now[1] - before[0]


def check_room(needed: int) -> None:
    """Refuses what would not fit in the host's memory, where the system ends a process that takes too much.

    Raises:
      NoRoomError: where the first device lies in the host's memory and less than `needed` bytes of it are left.
    """
    left = memory_left()
    if jax.default_backend() == "cpu" and left is not None and needed > left:
        raise NoRoomError(f"a step takes {needed / 2**30:.1f} GiB, and {left / 2**30:.1f} GiB are left")


def memory_left() -> int | None:
    """Bytes of the host's memory that a process can still take, or None where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            found = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return 1024 * found["MemAvailable"]
    except (OSError, KeyError, ValueError):
        pages = "SC_AVPHYS_PAGES"
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages in os.sysconf_names else None


def told(error: Exception) -> str:
    """What went wrong, in a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    no_room = isinstance(error, (NoRoomError, MemoryError)) or "RESOURCE_EXHAUSTED" in lines[0]
    text = lines[0] if len(lines[0]) <= _MOST_TOLD else lines[0][: _MOST_TOLD - 1] + "…"
    return f"out of memory: {text}" if no_room else text
