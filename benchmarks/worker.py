"""One side of a comparison as a process of its own, which is asked for one thing at a time.

    python benchmarks/worker.py SETUP

A process of JAX and one of PyTorch would share neither memory nor an environment. Requests and answers are JSON, one a
line: `["describe"]`, `["prepare", batch_size, variant]`, `["turn", batch_size, variant, uncounted, steps]`,
`["drop", batch_size]`.
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
    """What a side said when it failed, or that it has stopped or takes too long."""


class Worker:
    """A side, started and asked from the comparing process."""

    def __init__(self, python: str, setup: dict[str, Any], environment: dict[str, str]):
        command = [python, __file__, json.dumps(setup)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, *request: Any) -> None:
        """Sends a request.

        Raises:
          WorkerError: if nobody is there to take it.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerError("its process has stopped") from error

    def answer(self, seconds: float) -> Any:
        """The answer to the oldest request without one.

        Raises:
          WorkerError: where it fails, has stopped, or takes longer; a side that takes longer is ended.
        """
        try:
            line = self._answers.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            self.stop()
            raise WorkerError("the time was up") from None
        if not line:
            self._answers.put("")
            raise WorkerError("its process has stopped")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _listen(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put("")


def serve(side: Any, requests: TextIO, answers: TextIO) -> None:
    """Answers requests until there are none; what goes wrong is an answer too."""
    for line in requests:
        print(json.dumps(_attempt(side, *json.loads(line))), file=answers, flush=True)


def _attempt(side: Any, action: str, *words: Any) -> Any:
    try:
        return {"prepare": _prepare, "turn": _turn, "drop": _drop, "describe": _describe}[action](side, *words)
    # Whatever a library comes up with ends this request, not the others.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0][:160]}"}


def _describe(side: Any) -> dict[str, Any]:
    return side.describe()


def _prepare(side: Any, batch_size: int, variant: str) -> None:
    side.prepare(batch_size, variant)
    side.rest()


def _turn(side: Any, batch_size: int, variant: str, uncounted: int, steps: int) -> dict[str, float]:
    """Wall and CPU seconds of a step, after steps that are not counted: the first after a pause waits for memory."""
    side.run(batch_size, variant, uncounted)
    wall, cpu = time.perf_counter(), time.process_time()
    side.run(batch_size, variant, steps)
    taken = {"wall": (time.perf_counter() - wall) / steps, "cpu": (time.process_time() - cpu) / steps}
    side.rest()
    return taken


def _drop(side: Any, batch_size: int) -> None:
    side.drop(batch_size)


def main() -> None:
    """Be a side. What libraries print goes to stderr: stdout is for answers."""
    setup = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        if setup["library"] == "jax":
            from jax_side import JaxSide as Side
        else:
            from torch_side import TorchSide as Side
        side = Side(setup)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        return
    serve(side, sys.stdin, answers)


if __name__ == "__main__":
    main()
