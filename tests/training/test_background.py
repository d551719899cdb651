"""An observer in a thread of its own: training does not wait for it, and nothing that it is owed is lost."""

import threading

import pytest
from conftest import TinyNet

import stepwise_jax as sj
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.workdir.record_file import read_records

SHORT = {"plan.fractions": (0.1, 1.0), "plan.batch_multipliers": (1, 1), "plan.epochs_per_stage": 1}


@pytest.fixture
def short(experiment):
    return override_fields(experiment, SHORT)


def test_training_does_not_wait_for_an_observer_in_the_background(short):
    released, seen, shown = threading.Event(), [], []

    def slow(record):
        # If training waited for this, nobody would ever release it.
        assert released.wait(600)
        seen.append(record)

    for record in sj.train(short, TinyNet(), observers=[sj.in_background(slow), shown.append]):
        if record.kind == "epoch" and record.stage == 2:
            assert not seen
            released.set()
    assert seen == shown
    assert seen[-1].kind == "end"


def test_an_error_in_the_background_is_reported_once(short, tmp_path):
    calls = []

    def failing(record):
        calls.append(record)
        raise ZeroDivisionError("my own fault")

    *_, last = sj.train(short, TinyNet(), workdir=tmp_path, observers=[sj.in_background(failing)])
    assert last.kind == "summary"
    assert len(calls) == 1
    events = [row["message"] for row in read_records(tmp_path).events if row["name"] == "observer"]
    assert events == ["the observer failing failed (ZeroDivisionError: my own fault): it is no longer called"]
