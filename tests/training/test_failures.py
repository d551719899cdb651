"""A loss that is not finite: where the run stops, what it leaves, and how it goes back."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import Recorder, TinyNet

from stepwise_jax.errors import InputError, NonFiniteLossError
from stepwise_jax.inference.trained import open_trained
from stepwise_jax.plans.stage import Stage
from stepwise_jax.training import failures
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.records import EpochRecord

CALM = Stage("A", 0.1, 144, 32, 0.05, epochs=2, milestones=(1,))
LAST = Stage("O", 1.0, 1437, 64, 0.01, epochs=1)


def plan(rate: float):
    """A strategy whose second stage, from update 8 on, has this rate; at 100 the weights grow without end."""

    def wild(*_):
        return (CALM, Stage("B", 0.5, 718, 64, rate, epochs=3, milestones=(2,)), LAST)

    return {"plan.strategy": wild}


def committed(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.parametrize("every_seconds", [1e9, 1e-9])
def test_the_run_stops_at_the_step_and_keeps_a_good_checkpoint_alone(train, tmp_path, every_seconds):
    with pytest.raises(NonFiniteLossError) as caught:
        train(tmp_path / "run", **plan(100.0), **{"checkpoint.every_seconds": every_seconds})
    messages = re.fullmatch(
        r"the loss is (nan|inf) at update (\d+) \(stage 2 B, epoch 1, learning rate 100, batch size 64\): "
        r"a lower plan.learning_rate may help",
        str(caught.value),
    )
    assert messages
    assert caught.value.status == 3
    saved = committed(tmp_path / "run")
    assert 8 in saved, "the start of the stage is kept"
    assert saved[-1] < int(messages[2])
    for step in reversed(saved):
        trained = open_trained(tmp_path / "run", TinyNet())
        assert trained.updates == step
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.variables))
        (tmp_path / "run" / "checkpoints" / str(step)).rename(tmp_path / str(step))


def test_a_rate_that_diverges_goes_back_to_a_tenth_of_it(train, tmp_path):
    display = Recorder()
    summary = train(tmp_path / "run", display=display, on_nan="back", **plan(100.0))
    messages = [message for message in display.messages if "going back to update 8" in message]
    assert messages
    rate = 100.0
    for _ in messages:
        rate *= failures.RESTART_RATE_FACTOR
    expected = train(tmp_path / "calm", **plan(rate))
    assert summary["state_sha256"] == expected["state_sha256"]
    ours, theirs = (record_file.read_records(tmp_path / name) for name in ("run", "calm"))
    assert record_file.without_seconds(ours.epochs) == record_file.without_seconds(theirs.epochs)
    assert ours.stages[1]["learning_rate"] == pytest.approx(rate)
    assert [row["message"] for row in ours.events if row["name"] == "back"] == messages
    assert [row["learning_rate"] for row in ours.epochs if row["stage"] == 3] == [0.01], "other stages keep their rates"


class Stumbling(Recorder):
    """Ends the process, as far as a run can tell, once, when something is said or an epoch is done."""

    def __init__(self, message: str = "", epoch: tuple[int, int, float] = (0, 0, 0.0)):
        super().__init__()
        self._message, self._epoch = message, epoch

    def show_message(self, text: str) -> None:
        super().show_message(text)
        if self._message and self._message in text:
            raise KeyboardInterrupt

    def on_epoch(self, record: EpochRecord) -> None:
        if (record.stage, record.epoch, record.learning_rate) == self._epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("every_seconds", [1e9, 1e-9])
@pytest.mark.parametrize("moment", ["while it goes back", "after it went back"])
def test_a_run_that_went_back_resumes_on_the_same_path(train, tmp_path, moment, every_seconds):
    fields = {**plan(100.0), "on_nan": "back", "checkpoint.every_seconds": every_seconds}
    undisturbed = train(tmp_path / "undisturbed", **fields)
    rate = record_file.read_records(tmp_path / "undisturbed").stages[1]["learning_rate"]
    stumbling = {
        "while it goes back": Stumbling(message="going back"),
        "after it went back": Stumbling(epoch=(2, 2, rate)),
    }
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", display=stumbling[moment], **fields)
    assert train(tmp_path / "run", **fields)["state_sha256"] == undisturbed["state_sha256"]
    ours, theirs = (record_file.read_records(tmp_path / name) for name in ("run", "undisturbed"))
    assert record_file.without_seconds(ours.epochs) == record_file.without_seconds(theirs.epochs)


def test_a_stage_restarts_a_few_times_only(train, tmp_path):
    display = Recorder()
    with pytest.raises(NonFiniteLossError, match=r"restarted 3 times"):
        train(tmp_path / "run", display=display, on_nan="back", **plan(1e30))
    assert sum("going back" in message for message in display.messages) == failures.MAX_RESTARTS_PER_STAGE
    assert committed(tmp_path / "run") == [8]


def test_the_first_stage_goes_back_to_the_initial_state(train, tmp_path):
    def wild(*_):
        return (Stage("A", 0.5, 718, 64, 100.0, epochs=3), LAST)

    summary = train(tmp_path / "run", on_nan="back", **{"plan.strategy": wild})
    rate = record_file.read_records(tmp_path / "run").stages[0]["learning_rate"]
    assert rate < 100.0

    def calm(*_):
        return (Stage("A", 0.5, 718, 64, rate, epochs=3), LAST)

    assert train(tmp_path / "calm", **{"plan.strategy": calm})["state_sha256"] == summary["state_sha256"]


def test_a_run_that_stopped_can_resume_with_on_nan_back(train, tmp_path):
    with pytest.raises(NonFiniteLossError):
        train(tmp_path / "run", **plan(100.0))
    undisturbed = train(tmp_path / "undisturbed", on_nan="back", **plan(100.0))
    assert train(tmp_path / "run", on_nan="back", **plan(100.0))["state_sha256"] == undisturbed["state_sha256"]


def test_weights_that_are_not_finite_behind_a_finite_loss_are_never_saved(train, tmp_path):
    """The last update of a stage can spoil them where no loss comes after it to tell."""

    def wild(*_):
        return (CALM, Stage("B", 0.1, 144, 144, 3e38, epochs=1, weight_decay=1e4), LAST)

    with pytest.raises(NonFiniteLossError, match=r"the network is no longer finite at update 9 \(stage 2 B, epoch 1"):
        train(tmp_path / "run", **{"plan.strategy": wild})
    assert committed(tmp_path / "run") == [8]


def test_every_rate_of_a_stage_is_lowered():
    session = dataclasses.make_dataclass("Session", ["stages"])(stages=())
    curve = dataclasses.replace(CALM, milestones=(), epoch_rates=(0.05, 0.01))
    lowered = failures.lower_rates(session, (CALM, curve, LAST), (2, 2, 1)).stages
    assert lowered[0].learning_rate == pytest.approx(0.005)
    assert lowered[1].epoch_rates == pytest.approx((0.0005, 0.0001))
    assert lowered[1].learning_rate == pytest.approx(0.0005)
    assert lowered[2] == LAST


def test_on_nan_is_stop_or_back(train, tmp_path):
    with pytest.raises(InputError, match=r"on_nan is 'forward': it must be one of 'stop', 'back'"):
        train(tmp_path / "run", on_nan="forward")
    assert not (tmp_path / "run").exists()
