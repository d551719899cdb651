"""What a task of Ray does on its worker. It imports nothing that a worker may lack."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PARENT = "STEPWISE_PARENT"
_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
"""Environment variables by which Ray gives its devices to a task."""


def run_command(command: Sequence[str], log: Path, folder: Path, environment: Mapping[str, str]) -> int:
    """Run a command until it ends; if the task is cancelled, make it save and stop.

    If this worker is killed, the command notices that its parent is gone, saves and stops.

    Args:
      command: to run.
      log: the file that collects its output.
      folder: in which the command runs.
      environment: of the command; the devices are those that the task has.

    Returns:
      The exit status, negative for a signal.
    """
    # By which Ray cancels a task. A cluster that a script started in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    others = {name: value for name, value in environment.items() if name not in _DEVICES}
    devices = {name: os.environ[name] for name in _DEVICES if name in os.environ}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**others, **devices, _PARENT: str(os.getpid())},
            start_new_session=True,
        )
    try:
        # Looked at, not waited for: Ray interrupts no system call.
        while process.poll() is None:
            time.sleep(0.2)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
    return process.returncode
