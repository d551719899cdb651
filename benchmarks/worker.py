"""One side of a comparison as a separate process, which handles one request at a time.

    python benchmarks/worker.py SETUP

JAX and PyTorch share neither memory nor an environment. Requests and responses are JSON, one a line: `["describe"]`,
`["prepare", batch_size, variant]`, `["turn", batch_size, variant, uncounted, steps]`, `["drop", batch_size]`.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from typing import Any, TextIO


class WorkerError(Exception):
    """A side failed, stopped, or takes too long; the message says which."""


class Worker:
    """A side, started and called from the comparing process."""

    def __init__(self, python: str, setup: dict[str, Any], environment: dict[str, str]):
        command = [python, __file__, json.dumps(setup)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self._responses: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, *request: Any) -> None:
        """Sends a request.

        Raises:
          WorkerError: if the process has stopped.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerError("its process has stopped") from error

    def receive(self, seconds: float) -> Any:
        """The response to the oldest request without one.

        Raises:
          WorkerError: if it fails, has stopped, or takes longer; a side that takes longer is ended.
        """
        try:
            line = self._responses.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            self.stop()
            raise WorkerError("the time was up") from None
        if not line:
            self._responses.put("")
            raise WorkerError("its process has stopped")
        response = json.loads(line)
        if isinstance(response, dict) and "error" in response:
            raise WorkerError(response["error"])
        return response

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _listen(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self._responses.put(line)
        self._responses.put("")


def serve(side: Any, requests: TextIO, responses: TextIO) -> None:
    """Responds to requests until there are none; an error is a response too."""
    for line in requests:
        print(json.dumps(_attempt(side, *json.loads(line))), file=responses, flush=True)


def _attempt(side: Any, action: str, *words: Any) -> Any:
    try:
        return {"prepare": _prepare, "turn": _turn, "drop": _drop, "describe": _describe}[action](side, *words)
    # Any exception of a library ends this request, not the others.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0][:160]}"}


def _describe(side: Any) -> dict[str, Any]:
    return side.describe()


def _prepare(side: Any, batch_size: int, variant: str) -> None:
    side.prepare(batch_size, variant)
    side.rest()


def _turn(side: Any, batch_size: int, variant: str, uncounted: int, steps: int) -> dict[str, float]:
    """Wall and CPU seconds of a step, after uncounted steps: the first after a pause waits for memory."""
    side.run(batch_size, variant, uncounted)
    wall, cpu = time.perf_counter(), time.process_time()
    side.run(batch_size, variant, steps)
    taken = {"wall": (time.perf_counter() - wall) / steps, "cpu": (time.process_time() - cpu) / steps}
    side.rest()
    return taken


def _drop(side: Any, batch_size: int) -> None:
    side.drop(batch_size)


def main() -> None:
    """Run one side. Libraries print to stderr: stdout is for responses."""
    setup = json.loads(sys.argv[1])
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        if setup["library"] == "jax":
            from jax_side import JaxSide as Side
        else:
            from torch_side import TorchSide as Side
        side = Side(setup)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=responses, flush=True)
        return
    serve(side, sys.stdin, responses)


if __name__ == "__main__":
    main()
