"""A workdir that is removed or made anew while a run trains in it, and one that has lost its description."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Recorder

from stepwise_jax.errors import InputError, StepwiseError
from stepwise_jax.workdir.lock import exclusive_lock
from stepwise_jax.workdir.records import EpochRecord


class AfterEpoch(Recorder):
    """Does something when an epoch, (stage, epoch), is done."""

    def __init__(self, stage: int, epoch: int, doing: Callable[[], object]):
        super().__init__()
        self._when, self._doing = (stage, epoch), doing

    def on_epoch(self, record: EpochRecord) -> None:
        super().on_epoch(record)
        if (record.stage, record.epoch) == self._when:
            self._doing()


def make_anew(folder: Path, saved: int) -> Callable[[], None]:
    """As `rm -r` and the same command again do, which has not come far yet; no save is in progress meanwhile."""

    def replace() -> None:
        while not (folder / "checkpoints" / str(saved)).exists():
            time.sleep(0.01)
        shutil.rmtree(folder)
        with exclusive_lock(folder):
            (folder / "config.json").write_text("{}")

    return replace


# An epoch in the middle of a stage, and the last one, after which only results are written.
@pytest.mark.parametrize(("stage", "epoch", "saved"), [(2, 1, 8), (3, 2, 30)])
def test_a_workdir_that_is_made_anew_is_not_written_into(stage, epoch, saved, train, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(StepwiseError, match=r"was removed or replaced while this process was training") as caught:
        train(folder, display=AfterEpoch(stage, epoch, make_anew(folder, saved)))
    assert caught.value.status == 1
    assert {path.name for path in folder.iterdir()} == {"lock", "config.json"}
    assert (folder / "config.json").read_text() == "{}"


def test_a_workdir_that_is_removed_ends_the_run_and_is_not_made_again(train, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(StepwiseError, match="was removed or replaced"):
        train(folder, display=AfterEpoch(1, 2, lambda: shutil.rmtree(folder)))
    assert not folder.exists()


def test_checkpoints_without_the_description_of_their_run_are_refused(train, tmp_path):
    folder = tmp_path / "run"
    train(folder)
    (folder / "config.json").rename(tmp_path / "kept.json")
    for changes in ({}, {"seed": 1, "plan.learning_rate": 0.5}):
        with pytest.raises(InputError, match=r"run has checkpoints and no config\.json: restore that file"):
            train(folder, **changes)
    assert not (folder / "config.json").exists()
    (tmp_path / "kept.json").rename(folder / "config.json")
    train(folder)
