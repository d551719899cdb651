"""Many runs as processes, with commands that take a moment: which are run, skipped, reported and stopped."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.runtime.signals import StopRequest
from stepwise_jax.studies.executors import job_queue
from stepwise_jax.studies.executors.job_queue import run_jobs
from stepwise_jax.studies.executors.local import LocalExecutor
from stepwise_jax.studies.executors.slots import Slot, default_processes, make_slots
from stepwise_jax.studies.jobs import Failure, Job, StudyObserver

FINISH = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(parents=True); "
FINISH += "(p / 'summary.json').write_text('{}')"
FAIL = "import sys; print('getting there'); sys.exit('error: data.root is \\'x\\': it must exist')"
# Writes a file when it is ready for a signal, and stops as a run does.
SLEEP = "import pathlib, signal, sys, time; p = pathlib.Path(sys.argv[1]); p.mkdir(parents=True); "
SLEEP += "signal.signal(signal.SIGTERM, lambda *_: (p.joinpath('saved').write_text(''), sys.exit(75))); "
SLEEP += "p.joinpath('ready').write_text(''); time.sleep(60)"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(job_queue, "POLL_SECONDS", 0.02)


def job(folder: Path, code: str = FINISH) -> Job:
    return Job(folder.name, folder, (sys.executable, "-S", "-c", code, str(folder)), 100)


class Log(StudyObserver):
    def __init__(self):
        self.rows: list[tuple[str, str]] = []
        self.most, self.finished = 0, 0

    def started(self, job: Job) -> None:
        self.rows.append(("started", job.name))

    def ended(self, job: Job, failure: Failure | None) -> None:
        self.rows.append(("failed" if failure else "done", job.name))

    def progressed(self, running: Sequence[Job], finished: int, samples_done: int) -> None:
        self.most, self.finished = max(self.most, len(running)), finished


def run(grid: Sequence[Job], slots: Sequence[Slot] = (Slot(),), stop: StopRequest | None = None):
    log = Log()
    return run_jobs(grid, LocalExecutor(slots), log, StopRequest() if stop is None else stop), log


@pytest.fixture
def hold() -> Iterator:
    """Holds a run's lock as another process that trains in it would."""
    handles = []

    def take(folder: Path) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        handles.append(os.open(folder / "lock", os.O_RDWR | os.O_CREAT))
        fcntl.flock(handles[-1], fcntl.LOCK_EX)
        return handles[-1]

    yield take
    for handle in handles:
        os.close(handle)


def test_what_is_finished_is_not_run_again(tmp_path):
    grid = [job(tmp_path / name) for name in "abc"]
    assert run(grid[:1])[1].rows == [("started", "a"), ("done", "a")]
    failures, log = run(grid)
    assert not failures
    assert log.rows == [("started", "b"), ("done", "b"), ("started", "c"), ("done", "c")]
    assert log.finished == 3
    assert run(grid)[1].rows == []


def test_one_that_fails_is_reported_and_the_others_continue(tmp_path):
    grid = [job(tmp_path / "a"), job(tmp_path / "b", FAIL), job(tmp_path / "c")]
    failures, _ = run(grid)
    assert [(each.job.name, each.status, each.message) for each in failures] == [
        ("b", 1, "data.root is 'x': it must exist")
    ]
    assert [each.done for each in grid] == [True, False, True]
    assert "getting there" in (tmp_path / "b.log").read_text()


def test_one_that_is_killed_or_silent_is_reported_by_its_status(tmp_path):
    killed = job(tmp_path / "a", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    silent = job(tmp_path / "b", "import sys; sys.exit(7)")
    unnamed = job(tmp_path / "c", "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)")
    messages = [each.message for each in run([killed, silent, unnamed])[0]]
    assert messages == [
        "its process was killed by SIGKILL",
        "its process ended with status 7",
        f"its process was killed by signal {signal.SIGRTMIN + 3}",
    ]


def test_as_many_at_a_time_as_there_are_slots(tmp_path):
    slow = FINISH.replace("p.mkdir", "import time; time.sleep(0.3); p.mkdir")
    _, log = run([job(tmp_path / name, slow) for name in "abcd"], [Slot(), Slot()])
    assert log.most == 2
    assert [what for what, _ in log.rows].count("done") == 4


def test_a_stop_lets_the_runs_save_themselves(tmp_path):
    grid, stop = [job(tmp_path / name, SLEEP) for name in "ab"], StopRequest()

    def ask() -> None:
        while not all((tmp_path / name / "ready").exists() for name in "ab"):
            time.sleep(0.02)
        stop.name = "SIGTERM"

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM: run the same command to continue"):
        run(grid, [Slot(), Slot()], stop)
    asking.join()
    assert all((tmp_path / name / "saved").exists() for name in "ab")


def test_a_study_that_is_killed_stops_its_runs(tmp_path):
    study = "import sys; from pathlib import Path; from stepwise_jax.runtime.signals import StopRequest; "
    study += "from stepwise_jax.studies.jobs import Job, StudyObserver; "
    study += "from stepwise_jax.studies.executors.job_queue import run_jobs; "
    study += "from stepwise_jax.studies.executors.local import LocalExecutor; "
    study += "from stepwise_jax.studies.executors.slots import Slot; folder = Path(sys.argv[1]); "
    study += "job = Job('a', folder, (sys.executable, '-c', sys.argv[2], sys.argv[1]), 1); "
    study += "run_jobs([job], LocalExecutor([Slot()]), StudyObserver(), StopRequest())"
    watch = "from stepwise_jax.runtime.signals import stop_with_parent; stop_with_parent(0.05); "
    sleep = SLEEP.replace("p.joinpath('ready')", f"{watch}p.joinpath('ready')")
    words = [sys.executable, "-c", study, str(tmp_path / "a"), sleep]
    with subprocess.Popen(words) as process:
        wait_for(tmp_path / "a" / "ready")
        process.kill()
    wait_for(tmp_path / "a" / "saved")


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} has not appeared"
        time.sleep(0.02)


def test_nothing_is_started_after_a_stop(tmp_path):
    stop = StopRequest()
    stop.name = "SIGINT"
    with pytest.raises(InterruptedRunError):
        run([job(tmp_path / "a")], stop=stop)
    assert not (tmp_path / "a").exists()


def test_no_run_is_left_behind_by_a_grid_that_breaks(tmp_path):
    class Broken(Log):
        def progressed(self, running: Sequence[Job], finished: int, samples_done: int) -> None:
            if (tmp_path / "a" / "ready").exists():
                raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        run_jobs([job(tmp_path / "a", SLEEP)], LocalExecutor([Slot()]), Broken(), StopRequest())
    assert (tmp_path / "a" / "saved").exists()


def test_a_run_that_another_process_trains_is_skipped(tmp_path, hold):
    grid = [job(tmp_path / "a"), job(tmp_path / "b")]
    handle = hold(tmp_path / "a")

    def finish() -> None:
        while not grid[1].done:
            time.sleep(0.02)
        (tmp_path / "a" / "summary.json").write_text("{}")
        fcntl.flock(handle, fcntl.LOCK_UN)

    other = threading.Thread(target=finish)
    other.start()
    failures, log = run(grid)
    other.join()
    assert not failures
    assert log.rows == [("started", "b"), ("done", "b")]
    assert log.finished == 2


def test_a_run_that_another_process_releases_is_resumed(tmp_path, hold):
    finish = FINISH.replace("mkdir(parents=True)", "mkdir(parents=True, exist_ok=True)")
    handle = hold(tmp_path / "a")
    threading.Timer(0.2, lambda: fcntl.flock(handle, fcntl.LOCK_UN)).start()
    failures, log = run([job(tmp_path / "a", finish)])
    assert not failures
    assert log.rows == [("started", "a"), ("done", "a")]


def test_losing_the_race_for_a_run_is_no_failure(tmp_path, hold):
    """Two grids may start a run at the same moment: the one that comes second waits for the other's."""
    losing = "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); p.with_name('started').write_text(''); "
    losing += "time.sleep(0.3); sys.exit('error: in use')"
    contested = job(tmp_path / "a", losing)

    def other() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        handle = hold(tmp_path / "a")
        time.sleep(0.8)
        (tmp_path / "a" / "summary.json").write_text("{}")
        fcntl.flock(handle, fcntl.LOCK_UN)

    winner = threading.Thread(target=other)
    winner.start()
    failures, log = run([contested])
    winner.join()
    assert not failures
    assert log.finished == 1


def test_samples_done_follow_the_last_whole_epoch_on_record(tmp_path):
    one = job(tmp_path / "a")
    assert one.samples_done() == 0
    one.folder.mkdir()
    rows = [{"kind": "epoch", "examples_seen": 40}, {"kind": "event", "message": "x"}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (one.folder / "records.jsonl").write_text(text + '{"kind": "epoch", "examp')
    assert one.samples_done() == 40
    (one.folder / "records.jsonl").write_text(text + '{"kind": "epoch", "examples_seen": null}\n')
    assert one.samples_done() == 40
    (one.folder / "records.jsonl").write_text('{"kind": "epoch", "examples_seen": 1000}\n')
    assert one.samples_done() == 100
    (one.folder / "summary.json").write_text("{}")
    assert one.samples_done() == 100


def test_every_process_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert default_processes() == 2
    assert [dict(slot.environment) for slot in make_slots(2)] == [
        {"CUDA_VISIBLE_DEVICES": "3"},
        {"CUDA_VISIBLE_DEVICES": "5"},
    ]
    three = [slot.environment for slot in make_slots(3)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in three] == ["3", "5", "3"]
    # The two on one GPU must not take more than there is of it; one alone keeps what JAX takes by default.
    assert [each.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for each in three] == ["0.45", None, "0.45"]


def test_a_share_of_gpu_memory_that_the_user_chose_is_kept(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
    assert [dict(slot.environment) for slot in make_slots(2)] == [{"CUDA_VISIBLE_DEVICES": "0"}] * 2


def test_the_chips_of_a_tpu_are_held_by_one_process(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    assert default_processes() == 1


@pytest.mark.parametrize("visible", ["", "-1"])
def test_no_gpu_that_may_be_seen_means_cores(monkeypatch, visible):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert all(slot.cores for slot in make_slots(1))


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6, 7, 9})
    first, second = (slot.cores for slot in make_slots(2))
    assert first | second == {4, 5, 6, 7, 9}
    assert not first & second
    assert {len(first), len(second)} == {2, 3}
    assert [sorted(slot.cores) for slot in make_slots(5)] == [[4], [5], [6], [7], [9]]
    assert [sorted(slot.cores) for slot in make_slots(6)][5] == [4]
    assert 1 <= default_processes() <= 5
    monkeypatch.delattr(os, "sched_getaffinity")
    assert make_slots(2) == (Slot({}), Slot({}))


def test_a_runs_process_has_its_slots_cores_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("GIVEN", "by the user")
    shared = {"SHARED": "by the grid"}
    one_core = min(os.sched_getaffinity(0))
    code = FINISH + "; import os; p.joinpath('saw').write_text(repr((sorted(os.sched_getaffinity(0)), "
    code += "os.environ['GIVEN'], os.environ['SHARED'], os.getpgid(0) == os.getpid())))"
    failures, _ = run([job(tmp_path / "a", code)], [Slot(shared, frozenset({one_core}))])
    assert not failures
    assert (tmp_path / "a" / "saw").read_text() == repr(([one_core], "by the user", "by the grid", True))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
