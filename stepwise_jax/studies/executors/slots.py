"""Slots of this machine: a device, or some of the processor's cores, for one run at a time."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Slot:
    """Room for one process at a time: a device, or some of the processor's cores."""

    environment: Mapping[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()


def make_slots(processes: int) -> tuple[Slot, ...]:
    """Slots for `processes` runs at a time: GPUs in turn where there are any, else equal shares of the cores.

    Args:
      processes: at least 1.
    """
    gpus = _gpus()
    if gpus:
        numbers = [gpus[i % len(gpus)] for i in range(processes)]
        return tuple(
            Slot({**_memory_limit(numbers.count(number)), "CUDA_VISIBLE_DEVICES": number}) for number in numbers
        )
    cores = _cores()
    if not cores:
        return (Slot(),) * processes
    if processes >= len(cores):
        return tuple(Slot({}, frozenset({cores[i % len(cores)]})) for i in range(processes))
    return tuple(Slot({}, frozenset(cores[i::processes])) for i in range(processes))


def _memory_limit(processes: int) -> dict[str, str]:
    """Environment that divides a GPU's memory among processes, unless the user has already limited it."""
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    return {} if processes == 1 or name in os.environ else {name: f"{0.9 / processes:.2f}"}


def default_processes() -> int:
    """How many runs to train at a time.

    One for each GPU. On a CPU one for each core, as long as each has 4 GiB of memory, and at most 8. One on a TPU,
    because a single process holds all its chips.
    """
    if _on_tpu():
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return len(_gpus()) or max(1, min(len(_cores()) or os.cpu_count() or 1, memory // 2**32, 8))


def _on_tpu() -> bool:
    platform = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    return platform == "tpu" or (not platform and Path("/dev/accel0").exists())


def _cores() -> list[int]:
    """The cores that this process may use; none where the system cannot bind processes to cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _gpus() -> list[str]:
    """The numbers of the GPUs that a run may use, found without starting JAX in this process."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number and number != "-1"]
    return [str(number) for number in range(64) if Path(f"/dev/nvidia{number}").exists()]
