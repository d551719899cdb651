"""Interrupts of `sj.train` in a process with Python's own handler of SIGINT, as that of a notebook."""

import signal
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from conftest import TinyNet

import stepwise_jax as sj
from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.workdir.lock import is_locked

SHORT = {"plan.fractions": (0.1, 1.0), "plan.batch_multipliers": (1, 1), "plan.epochs_per_stage": 1}


@pytest.fixture
def short(experiment, monkeypatch):
    # Two workers of a test run may have another handler than a notebook's kernel.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield override_fields(experiment, SHORT)
    signal.signal(signal.SIGINT, before)


def interrupt(times, number=signal.SIGINT):
    """An observer that interrupts the run after its first step."""

    def observe(record):
        if record.kind == "steps" and record.examples_seen == 32:
            for _ in range(times):
                signal.raise_signal(number)

    return observe


def finish(records: Iterable[Any]) -> dict[str, Any]:
    """The summary of a run, read to its end."""
    *_, last = records
    return last.summary


def has_own_handler() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("times", "error"), [(1, InterruptedRunError), (2, KeyboardInterrupt)])
def test_interrupts_end_the_run_and_not_the_process(short, tmp_path, times, error):
    with pytest.raises(error):
        list(sj.train(short, TinyNet(), workdir=tmp_path, observers=[interrupt(times)]))
    assert has_own_handler()
    assert not is_locked(tmp_path)
    assert finish(sj.train(short, TinyNet(), workdir=tmp_path))["updates"] == 4 + 44


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_notice_saves_and_stops_the_run_as_sigterm_does(short, tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(InterruptedRunError, match=f"stopped by {number.name} after ") as caught:
        list(sj.train(short, TinyNet(), workdir=tmp_path, observers=[interrupt(2, number)]))
    assert caught.value.status == 75
    assert signal.getsignal(number) is before
    resumed = [each.message for each in sj.train(short, TinyNet(), workdir=tmp_path) if each.kind == "event"]
    assert any(message.startswith("resuming after ") for message in resumed), resumed


def test_an_iterator_that_is_not_read_leaves_interrupts_to_the_caller(short, tmp_path):
    inside = []

    def observe(record):
        if record.kind == "steps":
            inside.append(has_own_handler())

    records: Any = sj.train(short, TinyNet(), workdir=tmp_path, observers=[observe])
    for _ in range(3):
        next(record for record in records if record.kind == "steps")
        assert has_own_handler()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert inside == [False] * 3
    # The interrupts were the caller's: the run is not stopped.
    assert finish(records)["updates"] == 4 + 44
    assert has_own_handler()


@pytest.mark.parametrize("place", ["here", "in another thread"])
def test_an_iterator_that_is_dropped_saves_and_leaves_the_handlers(short, tmp_path, place):
    records: Any = sj.train(short, TinyNet(), workdir=tmp_path)
    for record in records:
        if record.kind == "steps":
            break
    if place == "here":
        records.close()
    else:
        thread = threading.Thread(target=records.close)
        thread.start()
        thread.join()
    assert has_own_handler()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
