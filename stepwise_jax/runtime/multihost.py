"""Several processes that train one run together: how they start, communicate and exit.

Every process runs the same program on its own devices. Only the first one writes the workdir. The first process makes
every decision that must be the same everywhere and broadcasts it. An error in one process is raised on all of them, at
the same point. With a single process, the functions of this module communicate with nobody and return at once.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from stepwise_jax.errors import InputError, StepwiseError, first_line, require

_Output = TypeVar("_Output")

HEARTBEAT_SECONDS = 100
"""Default time without a heartbeat after which a process counts as dead."""

_CONNECT_SECONDS = 300

_CONNECT_FAILED_SECONDS = 60
"""How long a process that cannot train waits for the others, which learn from it why."""

_RESUME = "run the same command to continue"


class DistributedConfig(NamedTuple):
    """The arguments of `jax.distributed.initialize`; with None, JAX detects them from the cluster."""

    coordinator_address: str | None = None
    """`HOST:PORT` of the first process."""
    num_processes: int | None = None
    process_id: int | None = None
    """From 0."""


def initialize(
    config: DistributedConfig, heartbeat_seconds: int = HEARTBEAT_SECONDS, failure: StepwiseError | None = None
) -> None:
    """Connect to the other processes, before JAX initialises its devices.

    If the others do not connect in time, JAX ends the process with SIGABRT. So this first prints what it waits for.

    Args:
      config: the arguments of JAX.
      heartbeat_seconds: of silence after which a process counts as dead.
      failure: why this process cannot train. It connects all the same, so that `on_all_processes` can raise the failure
        on the others, which would wait for it. If they do not connect within a minute, this exits with its status.

    Raises:
      InputError: if the configuration is invalid, or no cluster is detected that could complete it.
      StepwiseError: if the address cannot be used.
    """
    _check_config(config, heartbeat_seconds)
    where = f"at {config.coordinator_address} " if config.coordinator_address else ""
    _announce_wait(where, failure)
    # The service's handler of SIGTERM would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        # In another thread: signal handlers run in this one, and would have to wait for the library to return.
        with ThreadPoolExecutor(1, "connect") as executor:
            _wait_for_others(executor.submit(_connect, config, heartbeat_seconds), failure)
    except ValueError as error:
        raise InputError(
            f"--distributed: no cluster detected ({error}): start the process with srun or mpirun, on a TPU pod or in "
            "Kubernetes, or give --coordinator, --processes and --process-id"
        ) from error
    except RuntimeError as error:
        raise StepwiseError(f"the processes cannot connect {where}({first_line(error)})") from error


def _connect(config: DistributedConfig, heartbeat_seconds: int) -> None:
    jax.distributed.initialize(
        *config, initialization_timeout=_CONNECT_SECONDS, heartbeat_timeout_seconds=heartbeat_seconds
    )


def _announce_wait(where: str, failure: StepwiseError | None) -> None:
    seconds = _CONNECT_FAILED_SECONDS if failure else _CONNECT_SECONDS
    reason = f", to say that this one cannot train: {failure}" if failure else ""
    print(
        f"waiting {where}for the other processes of this run, {seconds} s at most{reason}", file=sys.stderr, flush=True
    )


def _wait_for_others(connected: Future[None], failure: StepwiseError | None) -> None:
    try:
        connected.result(timeout=_CONNECT_FAILED_SECONDS if failure else None)
    except TimeoutError:
        assert failure is not None
        print(f"error: {failure}", file=sys.stderr, flush=True)
        # The thread that connects cannot be stopped, and ends the process in the end.
        os._exit(failure.status)


def _check_config(config: DistributedConfig, heartbeat_seconds: int) -> None:
    require(heartbeat_seconds >= 1, "--heartbeat", heartbeat_seconds, "at least 1 second")
    if set(config) == {None}:
        return
    if None in config:
        words = ("--coordinator", "--processes", "--process-id")
        missing = " and ".join(word for word, value in zip(words, config, strict=True) if value is None)
        raise InputError(f"{missing} must be given, too: --coordinator, --processes and --process-id belong together")
    address, processes, process = config
    assert address is not None
    assert processes is not None
    assert process is not None
    host, _, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
    require(bool(host) and is_port, "--coordinator", address, "HOST:PORT of the first process")
    require(processes >= 1, "--processes", processes, "at least 1")
    inside = 0 <= process < processes
    require(inside, "--process-id", process, f"between 0 and {processes - 1}")


def is_first_process() -> bool:
    """Return whether this is the process that writes the workdir."""
    return jax.process_index() == 0


def gather_from_all(document: Any) -> list[Any]:
    """Gather plain JSON data from every process, in the order of the processes."""
    if jax.process_count() == 1:
        return [document]
    content = np.frombuffer(json.dumps(document).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(content), np.int32))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(content)] = content
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def on_all_processes(work: Callable[[], _Output]) -> _Output:
    """Run `work` on every process; return its result here once all of them are done.

    Raises:
      StepwiseError: on every process if it fails on one.
    """
    if jax.process_count() == 1:
        return work()
    result, failure = None, None
    try:
        result = work()
    except Exception as error:
        failure = _as_stepwise_error(error)
    failures = gather_from_all(failure and [socket.gethostname(), getattr(failure, "status", 1), str(failure)])
    for process, reported in enumerate(failures):
        if reported is not None:
            raise _error_of_process(process, *reported)
    return result  # pyright: ignore[reportReturnType]


def on_first_then_others(work: Callable[[], _Output]) -> _Output:
    """Run `work` on the first process and then on the others, which find the files of the first one.

    Raises:
      StepwiseError: on every process if it fails on one.
    """
    if jax.process_count() == 1:
        return work()
    first = on_all_processes(work if is_first_process() else _do_nothing)
    others = on_all_processes(_do_nothing if is_first_process() else work)
    return first if is_first_process() else others  # pyright: ignore[reportReturnType]


def broadcast_from_first(work: Callable[[], _Output]) -> _Output:
    """Run `work` on the first process only; the others receive its result through JSON.

    Raises:
      StepwiseError: on every process if it fails.
    """
    if jax.process_count() == 1:
        return work()
    result = on_all_processes(work if is_first_process() else _do_nothing)
    return gather_from_all(result)[0]


def check_same_on_all_processes(values: Mapping[str, Any]) -> None:
    """Check that named JSON values are the same on all processes.

    Raises:
      InputError: on every process, with the first name whose values differ, the values, and who has which.
    """
    gathered = gather_from_all([socket.gethostname(), dict(values)])
    names = dict.fromkeys(name for _, each in gathered for name in each)
    different = [name for name in names if any(each.get(name) != gathered[0][1].get(name) for _, each in gathered)]
    if different:
        who: dict[str, list[str]] = {}
        for process, (host, each) in enumerate(gathered):
            who.setdefault(json.dumps(each.get(different[0])), []).append(f"process {process} on {host}")
        raise _difference_error(different, who)


def _difference_error(different: list[str], who: Mapping[str, list[str]]) -> InputError:
    """The error for names with different values, given who has which value of the first name."""
    shown = {value: " and ".join([*places[:2], *["others" for _ in places[2:3]]]) for value, places in who.items()}
    phrases = [f"{value} on {places}" for value, places in shown.items()]
    others = f" ({len(different) - 1} more differ, such as {different[1]})" if different[1:] else ""
    error = InputError(
        f"{different[0]} differs among the processes of this run: {', '.join(phrases)}{others}: start all of them with "
        "the same command, files and versions"
    )
    error.on_all_processes = True
    return error


@contextmanager
def enter_on_first_process(make_context: Callable[[], AbstractContextManager[_Output]]) -> Iterator[_Output | None]:
    """Enter a context on the first process only; yields its value there, and None on the others.

    If that fails, every process raises the error.
    """
    with ExitStack() as stack:

        def enter() -> _Output:
            return stack.enter_context(make_context())

        yield on_all_processes(enter if is_first_process() else _do_nothing)


@contextmanager
def exit_on_local_failure(finish: Callable[[], None]) -> Iterator[None]:
    """Exit this process at once if the block fails here and the other processes do not know it.

    A normal exit, which waits for saves and disconnects, would deadlock: the others are waiting for this process. They
    notice that it is gone, and exit as well.

    Args:
      finish: called before the error message is printed.
    """
    try:
        yield
    except Exception as error:
        if not is_local_failure(error):
            raise
        finish()
        failure = _as_stepwise_error(error)
        message = f"error: process {jax.process_index()} of {jax.process_count()}: {failure}"
        print(message, file=sys.stderr, flush=True)
        os._exit(failure.status)


def is_local_failure(error: BaseException) -> bool:
    """Return whether the other processes do not know of an error, so that this one must not wait for them."""
    return jax.process_count() > 1 and not getattr(error, "on_all_processes", False)


def _do_nothing() -> None:
    """Do nothing while another process works."""


def _as_stepwise_error(error: Exception) -> StepwiseError:
    """Convert an error to one sentence; for an unexpected one, print the traceback, too."""
    if isinstance(error, StepwiseError):
        return error
    if isinstance(error, OSError):
        return StepwiseError(f"{error.filename or 'the output'}: {error.strerror or error}")
    reason = first_line(error)
    # The type of an error of Gloo, which connects processes on CPUs, does not show its origin.
    if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in reason:
        return StepwiseError(f"the processes lost their connection, as when one of them has died ({reason}): {_RESUME}")
    traceback.print_exception(error)
    return StepwiseError(reason)


def _error_of_process(process: int, host: str, status: int, message: str) -> StepwiseError:
    elsewhere = f"process {process} on {host}: " if process != jax.process_index() else ""
    error = InputError(elsewhere + message) if status == InputError.status else StepwiseError(elsewhere + message)
    error.status, error.on_all_processes = status, True
    return error
