"""Many runs as processes: started, watched, stopped and taken up again. The runs here are one-liners."""

import fcntl
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from stepwise_jax import cells
from stepwise_jax.cells import Cell, Failure, Slot, Watcher, make_slots, run_cells
from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.interruption import StopRequest

WRITE = (
    "import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.mkdir(parents=True); (f / 'summary.json').write_text('{}')"
)
FAIL = "import sys; print('warning: a', file=sys.stderr); print('error: the loss is nan', file=sys.stderr); sys.exit(3)"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
WAIT = (
    "import pathlib, signal, sys, time\n"
    "def stop(*_):\n    pathlib.Path(sys.argv[1] + '.stopped').write_text('')\n    sys.exit(75)\n"
    "signal.signal(signal.SIGTERM, stop)\npathlib.Path(sys.argv[1] + '.ready').write_text('')\ntime.sleep(60)\n"
)
SLOTS = (Slot(), Slot())


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cells, "POLL_SECONDS", 0.02)


def cell(folder: Path, code: str, samples: int = 10) -> Cell:
    return Cell(folder.name, folder, (sys.executable, "-c", code, str(folder)), samples)


class Seen(Watcher):
    def __init__(self):
        self.begun: list[str] = []
        self.done: list[tuple[str, Failure | None]] = []

    def started(self, cell: Cell) -> None:
        self.begun.append(cell.name)

    def ended(self, cell: Cell, failure: Failure | None) -> None:
        self.done.append((cell.name, failure))


def test_what_is_finished_is_not_run_again(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "summary.json").write_text("kept")
    seen = Seen()
    assert run_cells([cell(tmp_path / name, WRITE) for name in "abc"], SLOTS, seen, StopRequest()) == []
    assert sorted(seen.begun) == ["b", "c"]
    assert (tmp_path / "a" / "summary.json").read_text() == "kept"
    assert (tmp_path / "c" / "summary.json").exists()


def test_a_run_that_fails_takes_no_other_with_it(tmp_path):
    runs = [cell(tmp_path / "bad", FAIL), cell(tmp_path / "killed", KILLED), cell(tmp_path / "good", WRITE)]
    failures = {each.cell.name: each for each in run_cells(runs, SLOTS[:1], Seen(), StopRequest())}
    assert (failures["bad"].status, failures["bad"].message) == (3, "the loss is nan")
    assert (failures["killed"].status, failures["killed"].message) == (-9, "its process was killed by SIGKILL")
    assert runs[2].done
    assert "warning: a" in runs[0].log.read_text()


def test_a_signal_stops_every_run_and_says_how_to_go_on(tmp_path):
    stop, runs = StopRequest(), [cell(tmp_path / name, WAIT) for name in "abc"]

    def interrupt() -> None:
        while not all((tmp_path / f"{name}.ready").exists() for name in "ab"):
            time.sleep(0.01)
        stop.name = "SIGINT"

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(InterruptedRunError, match="stopped by SIGINT: run the same command to go on"):
        run_cells(runs, SLOTS, Seen(), stop)
    thread.join()
    assert [(tmp_path / f"{name}.stopped").exists() for name in "abc"] == [True, True, False]


def test_a_run_that_another_process_has_in_hand_is_left_to_it(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    seen = Seen()

    def finish() -> None:
        while not (tmp_path / "ours" / "summary.json").exists():
            time.sleep(0.01)
        (folder / "summary.json").write_text("{}")
        os.close(handle)

    thread = threading.Thread(target=finish)
    thread.start()
    runs = [cell(folder, FAIL), cell(tmp_path / "ours", WRITE)]
    assert run_cells(runs, SLOTS, seen, StopRequest()) == []
    thread.join()
    assert seen.begun == ["ours"]


def test_progress_is_what_the_records_tell(tmp_path):
    run = cell(tmp_path / "run", WRITE, samples=100)
    assert run.samples_done() == 0
    run.folder.mkdir()
    (run.folder / "records.jsonl").write_text(
        '{"kind": "epoch", "examples_seen": 30}\n{"kind": "event"}\n{"kind": "epo'
    )
    assert run.samples_done() == 30
    (run.folder / "summary.json").write_text("{}")
    assert run.samples_done() == 100


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    assert [sorted(slot.cores) for slot in make_slots(2, {})] == [[0, 2, 4], [1, 3]]
    assert [sorted(slot.cores) for slot in make_slots(7, {})] == [[0], [1], [2], [3], [4], [0], [1]]


def test_each_gpu_has_a_run_and_more_runs_share_its_memory(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert cells.default_processes() == 2
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in make_slots(3, {})] == ["2", "5", "2"]
    assert make_slots(4, {})[0].environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.45"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in make_slots(2, {})[0].environment


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("STEPWISE_TEST", "theirs")
    (slot,) = make_slots(1, {"STEPWISE_TEST": "ours", "STEPWISE_OTHER": "ours"})
    assert slot.environment == {"STEPWISE_OTHER": "ours"}


def test_a_slots_environment_and_cores_reach_the_run(tmp_path):
    code = (
        "import json, os, pathlib, sys, time; time.sleep(0.2); f = pathlib.Path(sys.argv[1]); f.mkdir(); "
        "(f / 'summary.json').write_text(json.dumps([os.environ['STEPWISE_TEST'], sorted(os.sched_getaffinity(0))]))"
    )
    core = min(os.sched_getaffinity(0))
    run_cells([cell(tmp_path / "a", code)], [Slot({"STEPWISE_TEST": "x"}, frozenset({core}))], Seen(), StopRequest())
    assert (tmp_path / "a" / "summary.json").read_text() == f'["x", [{core}]]'
