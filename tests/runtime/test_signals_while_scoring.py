"""A signal while the test set is scored, or batch statistics are measured again: no step is under way."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Recorder, TinyNet

from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.training.measurements import evaluation
from stepwise_jax.training.programs.compilation import CompiledFunctions
from stepwise_jax.workdir import folder, record_file


class Sender:
    """Calls a program of the run's, and sends a signal to this process at a certain call."""

    def __init__(self, program: Callable[..., Any], at: int):
        self._program, self._left = program, at

    def __get__(self, compiled: CompiledFunctions, _: type) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            return self._program(compiled, *args)

        return call


# The test set is scored in 4 batches after each of 6 epochs; a subset is measured anew in 11 and 44 batches.
MOMENTS = [
    ("evaluate", 1, "after 4 updates"),
    ("evaluate", 14, "after 30 updates"),
    ("evaluate", 22, "after 118 updates"),
    ("update_batch_stats", 3, "after 8 updates"),
    ("update_batch_stats", 30, "after 30 updates"),
    ("predict", 2, "after 118 updates"),
]


@pytest.mark.parametrize(("program", "at", "message"), MOMENTS)
def test_evaluation_and_reestimation_stop_between_batches_and_are_repeated(
    train, tmp_path, monkeypatch, program, at, message
):
    fields = {"plan.batch_statistics": "reestimated"}
    undisturbed = train(tmp_path / "undisturbed", **fields)
    with monkeypatch.context() as patched:
        sender = Sender(getattr(CompiledFunctions, program), at)
        patched.setattr(CompiledFunctions, program, sender)
        with pytest.raises(InterruptedRunError, match=message):
            train(tmp_path / "run", **fields)
        assert sender._left == 0, "more batches after the signal"
    assert train(tmp_path / "run", **fields)["state_sha256"] == undisturbed["state_sha256"]
    ours, theirs = (record_file.read_records(tmp_path / name) for name in ("run", "undisturbed"))
    assert record_file.without_seconds(ours.epochs) == record_file.without_seconds(theirs.epochs)
    display = Recorder()
    train(tmp_path / "run", display=display, **fields)
    assert "this run is finished: nothing to do" in display.messages


def test_evaluate_stops_between_batches_too(train, tmp_path, monkeypatch, experiment):
    train(tmp_path / "run")
    planned = folder.parse_config(folder.read_config(tmp_path / "run"))[1]
    sender = Sender(CompiledFunctions.evaluate, 2)
    monkeypatch.setattr(CompiledFunctions, "evaluate", sender)
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM before all images were scored"):
        evaluation.evaluate(experiment, planned, TinyNet(), tmp_path / "run")
    assert sender._left == 0
