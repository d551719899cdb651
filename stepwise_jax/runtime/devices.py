"""The devices of this machine: what they are, their memory, and their published peak performance."""

import os
from importlib.metadata import version
from typing import Any, NamedTuple

import jax

_MOST_TOLD = 160


class InsufficientMemoryError(Exception):
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
        raise InsufficientMemoryError(f"a step takes {needed / 2**30:.1f} GiB, and {left / 2**30:.1f} GiB are left")


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
    no_room = isinstance(error, (InsufficientMemoryError, MemoryError)) or "RESOURCE_EXHAUSTED" in lines[0]
    text = lines[0] if len(lines[0]) <= _MOST_TOLD else lines[0][: _MOST_TOLD - 1] + "…"
    return f"out of memory: {text}" if no_room else text


class Peak(NamedTuple):
    """Of one device."""

    bfloat16: float | None
    """Floating-point operations a second, or None where the device has no such unit."""
    float32: float
    """Floating-point operations a second."""
    bandwidth: float
    """Bytes a second between the device's memory and its cores."""

    def flops(self, precision: str) -> float | None:
        """Operations a second at "bfloat16" or "float32"."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


# The first name that a device's kind contains is its own: the longer names come first.
_PEAKS = {
    "H200": Peak(989e12, 494e12, 4.8e12),
    "H100 PCIe": Peak(756e12, 378e12, 2.0e12),
    "H100 NVL": Peak(835e12, 417e12, 3.9e12),
    "H100": Peak(989e12, 494e12, 3.35e12),
    "A100-SXM4-40GB": Peak(312e12, 156e12, 1.555e12),
    "A100-PCIE-40GB": Peak(312e12, 156e12, 1.555e12),
    "A100 80GB PCIe": Peak(312e12, 156e12, 1.935e12),
    "A100": Peak(312e12, 156e12, 2.039e12),
    "NVIDIA L4": Peak(121e12, 60e12, 300e9),
    "T4": Peak(None, 8.1e12, 300e9),
    "TPU v4": Peak(275e12, 275e12, 1.2e12),
    "TPU v5 lite": Peak(197e12, 197e12, 819e9),
    "TPU v5": Peak(459e12, 459e12, 2.765e12),
    "TPU v6 lite": Peak(918e12, 918e12, 1.64e12),
}

_LONGER = ("NVIDIA L40", "TPU v4 lite")
"""Kinds that contain a name above and are other devices."""


def find(device_kind: str) -> Peak | None:
    """The published peak of a device by `jax.Device.device_kind`, or None where this table does not have it."""
    if any(name in device_kind for name in _LONGER):
        return None
    return next((peak for name, peak in _PEAKS.items() if name in device_kind), None)


def describe_device() -> str:
    """The devices in words: `1 x cpu`, `8 x NVIDIA H200`."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
