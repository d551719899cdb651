"""The devices of this machine: what they are, their memory, and their published peak performance."""

import os
from importlib.metadata import version
from typing import Any, NamedTuple

import jax

from stepwise_jax.errors import is_out_of_memory

_MAX_MESSAGE_LENGTH = 160


class InsufficientMemoryError(Exception):
    """A program needs more host memory than is available."""


def describe_environment() -> dict[str, Any]:
    """Return `{"device", "devices", "versions"}` of this process."""
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax")}
    return {"device": jax.devices()[0].device_kind, "devices": jax.device_count(), "versions": versions}


def device_memory_use() -> tuple[int, int] | None:
    """Return the bytes in use on the first device, and their peak so far; None if the device does not count them."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" not in stats:
        return None
    return stats["bytes_in_use"], stats["peak_bytes_in_use"]


def peak_memory_since(before: tuple[int, int] | None) -> int | None:
    """Return the peak of the bytes in use above those in use `before`, as returned by `device_memory_use`.

    None if the device does not count them, or if the peak is from before: it cannot be reset.
    """
    now = device_memory_use()
    if before is None or now is None or now[1] <= before[1]:
        return None
    return now[1] - before[0]


def check_host_memory(needed: int) -> None:
    """Refuse a program that would not fit in host memory: the system kills a process that takes too much.

    Raises:
      InsufficientMemoryError: on a CPU, if fewer than `needed` bytes of host memory are available.
    """
    available = available_host_memory()
    if jax.default_backend() == "cpu" and available is not None and needed > available:
        raise InsufficientMemoryError(
            f"a step needs {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are available"
        )


def available_host_memory() -> int | None:
    """Return the bytes of host memory that are available, or None if the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            found = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return 1024 * found["MemAvailable"]
    except (OSError, KeyError, ValueError):
        pages = "SC_AVPHYS_PAGES"
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages in os.sysconf_names else None


def describe_failure(error: Exception) -> str:
    """Describe a failure in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    no_memory = isinstance(error, (InsufficientMemoryError, MemoryError)) or is_out_of_memory(error)
    text = lines[0] if len(lines[0]) <= _MAX_MESSAGE_LENGTH else lines[0][: _MAX_MESSAGE_LENGTH - 1] + "…"
    return f"out of memory: {text}" if no_memory else text


class PeakPerformance(NamedTuple):
    """The published peak performance of one device."""

    bfloat16: float | None
    """Floating-point operations per second, or None if the device has no such unit."""
    float32: float
    """Floating-point operations per second."""
    bandwidth: float
    """Bytes per second between the device's memory and its cores."""

    def flops(self, precision: str) -> float | None:
        """Return the operations per second at "bfloat16" or "float32"."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


# The first name that is part of a device's kind applies, so longer names come first.
_PEAKS = {
    "H200": PeakPerformance(989e12, 494e12, 4.8e12),
    "H100 PCIe": PeakPerformance(756e12, 378e12, 2.0e12),
    "H100 NVL": PeakPerformance(835e12, 417e12, 3.9e12),
    "H100": PeakPerformance(989e12, 494e12, 3.35e12),
    "A100-SXM4-40GB": PeakPerformance(312e12, 156e12, 1.555e12),
    "A100-PCIE-40GB": PeakPerformance(312e12, 156e12, 1.555e12),
    "A100 80GB PCIe": PeakPerformance(312e12, 156e12, 1.935e12),
    "A100": PeakPerformance(312e12, 156e12, 2.039e12),
    "NVIDIA L4": PeakPerformance(121e12, 60e12, 300e9),
    "T4": PeakPerformance(None, 8.1e12, 300e9),
    "TPU v4": PeakPerformance(275e12, 275e12, 1.2e12),
    "TPU v5 lite": PeakPerformance(197e12, 197e12, 819e9),
    "TPU v5": PeakPerformance(459e12, 459e12, 2.765e12),
    "TPU v6 lite": PeakPerformance(918e12, 918e12, 1.64e12),
}

_OTHER_DEVICES = ("NVIDIA L40", "TPU v4 lite")
"""Kinds that contain a name above but are other devices."""


def find_peak(device_kind: str) -> PeakPerformance | None:
    """Return the published peak of a device by `jax.Device.device_kind`, or None if it is not in the table."""
    if any(name in device_kind for name in _OTHER_DEVICES):
        return None
    return next((peak for name, peak in _PEAKS.items() if name in device_kind), None)


def describe_device() -> str:
    """Describe the devices, such as `1 x cpu` or `8 x NVIDIA H200`."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
