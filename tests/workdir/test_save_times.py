"""When a checkpoint is due: by the clock, after a save that failed, and not while one is written."""

import time
from types import SimpleNamespace

from stepwise_jax.workdir import checkpoints as checkpoints_module
from stepwise_jax.workdir.checkpoints import Checkpoints
from tests.workdir.saved_states import POSITION, a_state, committed


def test_a_save_is_due_so_many_seconds_after_the_last(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(checkpoints_module, "time", SimpleNamespace(monotonic=lambda: now))
    with Checkpoints(tmp_path / "due", keep=2) as checkpoints:
        assert not checkpoints.should_save(10)
        now = 109.0
        assert not checkpoints.should_save(10)
        now = 110.0
        assert checkpoints.should_save(10)
        checkpoints.save(a_state(1), POSITION)
        checkpoints.wait()
        assert not checkpoints.should_save(10)
        now = 120.0
        assert checkpoints.should_save(10)


def test_no_save_is_due_while_one_is_being_written(tmp_path):
    with Checkpoints(tmp_path / "due", keep=2) as checkpoints:
        checkpoints.save(a_state(1, rows=200_000), POSITION)
        deadline = time.monotonic() + 60
        while not checkpoints.should_save(0):
            assert time.monotonic() < deadline
        assert committed(tmp_path / "due") == [1], "the previous save was still in progress"


def test_failed_saves_are_due_again_after_pauses_that_double_until_one_succeeds(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(checkpoints_module, "time", SimpleNamespace(monotonic=lambda: now))
    with Checkpoints(tmp_path / "due", keep=2) as checkpoints:
        for pause in (1, 2, 4, 8, 16, 32, 60, 60):
            checkpoints.postpone()
            now += pause - 0.5
            assert not checkpoints.should_save(1e-9)
            now += 0.5
            assert checkpoints.should_save(1e6)
        checkpoints.save(a_state(1), POSITION)
        checkpoints.wait()
        now += 60
        assert not checkpoints.should_save(100)
        now += 40
        assert checkpoints.should_save(100)
