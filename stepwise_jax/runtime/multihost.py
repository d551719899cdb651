"""Several processes that train one run together: how they begin, what they tell each other, and how they end.

Every process runs the same program on its own devices. The first one alone writes the workdir. What must not differ is
decided by the first and told to the others, and what fails on one is raised on all of them, at the same place. All
functions here do what is asked at once where there is one process.
"""

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from stepwise_jax.errors import InputError, StepwiseError, first_line, require

Result = TypeVar("Result")

HEARTBEAT_SECONDS = 100
"""How long a process may not be heard of before it is taken for dead, by default."""

_CONNECT_SECONDS = 300

_GO_ON = "run the same command to go on"


class DistributedConfig(NamedTuple):
    """Where this process stands among those of a run; None is found out from the cluster around it."""

    coordinator: str | None = None
    """`HOST:PORT` of the first process."""
    processes: int | None = None
    process: int | None = None
    """From 0."""


def start(place: DistributedConfig, heartbeat_seconds: int = HEARTBEAT_SECONDS) -> None:
    """Joins the other processes; before JAX has looked for devices.

    Where the others do not come in time, JAX ends the process by SIGABRT: what it waits for is told before.

    Raises:
      InputError: where the place makes no sense, or no cluster is found that would tell it.
      StepwiseError: where the address cannot be used.
    """
    _check(place, heartbeat_seconds)
    where = f"at {place.coordinator} " if place.coordinator else ""
    print(
        f"waiting {where}for the other processes of this run, {_CONNECT_SECONDS} s at most", file=sys.stderr, flush=True
    )
    # The service's own handler of SIGTERM would stand in the way of ours.
    jax.config.update("jax_enable_preemption_service", False)
    join = functools.partial(
        jax.distributed.initialize,
        place.coordinator,
        place.processes,
        place.process,
        initialization_timeout=_CONNECT_SECONDS,
        heartbeat_timeout_seconds=heartbeat_seconds,
    )
    try:
        # Not in this thread: a signal's handler runs here, and would wait for the library to return.
        with ThreadPoolExecutor(1, "join") as joining:
            joining.submit(join).result()
    except ValueError as error:
        raise InputError(
            f"--distributed: no cluster tells this process its place ({error}): start it by srun, mpirun, on a TPU pod "
            "or in Kubernetes, or name --coordinator, --processes and --process-id"
        ) from error
    except RuntimeError as error:
        raise StepwiseError(f"the processes cannot be joined {where}({first_line(error)})") from error


def _check(place: DistributedConfig, heartbeat_seconds: int) -> None:
    require(heartbeat_seconds >= 1, "--heartbeat", heartbeat_seconds, "at least 1 second")
    if set(place) == {None}:
        return
    if None in place:
        words = ("--coordinator", "--processes", "--process-id")
        missing = " and ".join(word for word, value in zip(words, place, strict=True) if value is None)
        raise InputError(f"{missing} must be named too: --coordinator, --processes and --process-id belong together")
    assert place.coordinator is not None
    assert place.processes is not None
    assert place.process is not None
    host, _, port = place.coordinator.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
    require(bool(host) and is_port, "--coordinator", place.coordinator, "HOST:PORT of the first process")
    require(place.processes >= 1, "--processes", place.processes, "at least 1")
    inside = 0 <= place.process < place.processes
    require(inside, "--process-id", place.process, f"between 0 and {place.processes - 1}")


def is_first_process() -> bool:
    """Whether this process is the one that writes the workdir."""
    return jax.process_index() == 0


def gather(document: Any) -> list[Any]:
    """What every process hands in, as plain JSON data, in the order of the processes."""
    if jax.process_count() == 1:
        return [document]
    content = np.frombuffer(json.dumps(document).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(content), np.int32))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(content)] = content
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def on_all_processes(work: Callable[[], Result]) -> Result:
    """What `work` returns here, once it is done on every process.

    Raises:
      StepwiseError: on every process where it fails on one.
    """
    if jax.process_count() == 1:
        return work()
    result, failure = None, None
    try:
        result = work()
    except Exception as error:
        failure = _described(error)
    failures = gather(failure and [getattr(failure, "status", 1), str(failure)])
    for process, told in enumerate(failures):
        if told is not None:
            raise _failed_everywhere(process, *told)
    return result  # pyright: ignore[reportReturnType]


def first_then_others(work: Callable[[], Result]) -> Result:
    """`work` on the first process, and then on the others, which find what the first one made.

    Raises:
      StepwiseError: on every process where it fails on one.
    """
    if jax.process_count() == 1:
        return work()
    made = on_all_processes(work if is_first_process() else _nothing)
    found = on_all_processes(_nothing if is_first_process() else work)
    return made if is_first_process() else found  # pyright: ignore[reportReturnType]


def broadcast_from_first(work: Callable[[], Result]) -> Result:
    """What `work` returns on the first process, which alone does it; the others get it as JSON has it.

    Raises:
      StepwiseError: on every process where it fails.
    """
    if jax.process_count() == 1:
        return work()
    made = on_all_processes(work if is_first_process() else _nothing)
    return gather(made)[0]


def check_same(what: str, value: Any) -> None:
    """Raises a `StepwiseError` on every process where a value is not the same on all of them."""
    values = gather(value)
    if any(each != values[0] for each in values):
        error = StepwiseError(f"{what} differ among the processes: {values}")
        error.on_all_processes = True
        raise error


@contextmanager
def entered_by_first(opened: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """A context that the first process alone is in; where it cannot be opened, every process raises that."""
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(opened())

        broadcast_from_first(enter)
        yield


@contextmanager
def exit_on_local_failure(finish: Callable[[], None]) -> Iterator[None]:
    """Ends this process at once where the block fails here and the others do not know it.

    What one usually does at the end, to wait for a save or to part from the others, would wait for them, and they for
    this process. They notice that it is gone, and end as well.

    Args:
      finish: called before the process says why it ends.
    """
    try:
        yield
    except Exception as error:
        if not is_local_failure(error):
            raise
        finish()
        described = _described(error)
        told = f"error: process {jax.process_index()} of {jax.process_count()}: {described}"
        print(told, file=sys.stderr, flush=True)
        os._exit(described.status)


def is_local_failure(error: BaseException) -> bool:
    """Whether the other processes do not know of an error, so that nothing may be waited for."""
    return jax.process_count() > 1 and not getattr(error, "on_all_processes", False)


def _nothing() -> None:
    """For a process that has nothing to do."""


def _described(error: Exception) -> StepwiseError:
    """An error as one sentence; of one that nobody foresaw the place is printed too."""
    if isinstance(error, StepwiseError):
        return error
    if isinstance(error, OSError):
        return StepwiseError(f"{error.filename or 'the output'}: {error.strerror or error}")
    reason = first_line(error)
    # By its kind alone an error of what joins processes on CPUs does not say where it comes from.
    if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in reason:
        return StepwiseError(f"training together failed, as it does when a process has died ({reason}): {_GO_ON}")
    traceback.print_exception(error)
    return StepwiseError(reason)


def _failed_everywhere(process: int, status: int, message: str) -> StepwiseError:
    elsewhere = f"process {process}: " if process != jax.process_index() else ""
    error = InputError(elsewhere + message) if status == InputError.status else StepwiseError(elsewhere + message)
    error.status, error.on_all_processes = status, True
    return error
