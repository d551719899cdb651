"""Jobs under a real Slurm of one node: killed, cancelled, stopped before their time limit, and found again."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from stepwise_jax.errors import InputError, InterruptedRunError
from stepwise_jax.runtime.signals import StopRequest
from stepwise_jax.studies.executors import job_queue, slurm
from stepwise_jax.studies.executors.job_queue import run_jobs
from stepwise_jax.studies.executors.slurm_commands import check_slurm, query_states
from stepwise_jax.studies.jobs import Failure, Job, Needs, StudyObserver
from tests.studies.executors.engines import find_process, slurm_node, wait_for
from tests.studies.executors.small_comparison import ROOT, RUNS, WORDS, epochs_of, states
from tests.studies.executors.small_comparison import undisturbed as undisturbed

FINISH = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(parents=True, exist_ok=True); "
FINISH += "(p / 'summary.json').write_text('{}')"
FAIL = "import sys; sys.exit('error: data.root is \\'x\\': it must exist')"
# Stopped by a signal the first time.
STOPPED = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(parents=True, exist_ok=True); "
STOPPED += "first = not (p / 'first').exists(); (p / 'first').write_text(''); first and sys.exit(75); "
STOPPED += "(p / 'summary.json').write_text('{}')"
SLEEP = "import pathlib, signal, sys, time; p = pathlib.Path(sys.argv[1]); p.mkdir(parents=True); "
SLEEP += "signal.signal(signal.SIGTERM, lambda *_: (p.joinpath('saved').write_text(''), sys.exit(75))); "
SLEEP += "p.joinpath('ready').write_text(''); time.sleep(100)"


@pytest.fixture(scope="module")
def conf() -> Iterator[Path]:
    with slurm_node() as path:
        yield path


@pytest.fixture
def node(conf, monkeypatch):
    """Slurm's commands find the node, which is asked often."""
    monkeypatch.setenv("SLURM_CONF", str(conf))
    # Otherwise submitit would write to what pytest captures now, and closes later.
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    monkeypatch.setattr(slurm, "ASK_SECONDS", 0.5)
    monkeypatch.setattr(job_queue, "POLL_SECONDS", 0.1)


class Log(StudyObserver):
    def __init__(self):
        self.rows: list[tuple[str, str]] = []

    def ended(self, job: Job, failure: Failure | None) -> None:
        self.rows.append((job.name, failure.message if failure else "done"))


def job(folder: Path, code: str) -> Job:
    return Job(folder.name, folder, (sys.executable, "-S", "-c", code, str(folder)), 100, Needs(minutes=5))


def make_executor(folder: Path) -> slurm.SlurmExecutor:
    return slurm.SlurmExecutor(pytest.importorskip("submitit"), folder / ".slurm")


def test_jobs_finish_fail_and_go_back_into_the_queue(node, tmp_path):
    grid = [job(tmp_path / "a", FINISH), job(tmp_path / "b", FAIL), job(tmp_path / "c", STOPPED)]
    log = Log()
    failures = run_jobs(grid, make_executor(tmp_path), log, StopRequest())
    assert [(each.job.name, each.status, each.message) for each in failures] == [
        ("b", 1, "data.root is 'x': it must exist")
    ]
    assert sorted(log.rows) == [("a", "done"), ("b", failures[0].message), ("c", "done")]
    # One array of three, of which the last alone was started twice: its number is that of the whole array.
    ids = [(tmp_path / f"{name}.slurm").read_text() for name in "abc"]
    assert [each.partition("_")[2] for each in ids] == ["0", "1", "2"]
    assert [restarts(each) for each in ids] == [0, 0, 1]


def test_a_job_that_never_saves_fails_after_three_starts_and_may_be_submitted_again(node, tmp_path):
    grid = [job(tmp_path / "a", "import sys; sys.exit(75)")]
    for _ in range(2):
        (failure,) = run_jobs(grid, make_executor(tmp_path), Log(), StopRequest())
        slurm_id = (tmp_path / "a.slurm").read_text()
        assert failure.message == (
            f"Slurm job {slurm_id} met its time limit of 5 min 3 times in a row without saving another checkpoint: "
            "raise --executor.time"
        )
        assert restarts(slurm_id) == 2


def restarts(slurm_id: str) -> int:
    return int(job_fields(slurm_id)["Restarts"])


def job_fields(slurm_id: str) -> dict[str, str]:
    found = subprocess.run(["scontrol", "show", "job", slurm_id], capture_output=True, text=True, check=True)
    return dict(word.split("=", 1) for word in found.stdout.split() if "=" in word)


def test_a_stop_empties_the_queue_and_lets_runs_save(node, tmp_path):
    grid, stop = [job(tmp_path / name, SLEEP) for name in "abc"], StopRequest()

    def ask() -> None:
        wait_for((tmp_path / "a" / "ready").exists, "nothing has started")
        stop.name = "SIGTERM"

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM: run the same command to continue"):
        run_jobs(grid, make_executor(tmp_path), Log(), stop)
    asking.join()
    assert (tmp_path / "a" / "saved").exists()
    # The node has two cores.
    assert not (tmp_path / "c").exists()
    found = query_states() or {}
    assert {found[(tmp_path / f"{name}.slurm").read_text()] for name in "abc"} == {"CANCELLED"}


def test_jobs_of_an_earlier_command_are_found_again(node, tmp_path):
    slow = "import time; time.sleep(3); " + FINISH
    grid = [job(tmp_path / name, slow) for name in "ab"]
    make_executor(tmp_path).submit(grid)
    ids = [(tmp_path / f"{name}.slurm").read_text() for name in "ab"]
    assert run_jobs(grid, make_executor(tmp_path), Log(), StopRequest()) == []
    assert [(tmp_path / f"{name}.slurm").read_text() for name in "ab"] == ids


@pytest.mark.parametrize(
    ("needs", "partition", "message"),
    [
        (Needs(minutes=5), "debgu", "--executor.partition is 'debgu': it must be one of debug"),
        (Needs(gpus=1, minutes=5), None, "Slurm refuses such jobs (--time=5 --cpus-per-task=1 --gpus-per-node=1): "),
        (Needs(cpus=64, minutes=5), "debug", "Slurm refuses such jobs (--time=5 --cpus-per-task=64 --partition=debug)"),
    ],
)
def test_jobs_that_slurm_would_refuse_are_refused_first(node, needs, partition, message):
    with pytest.raises(InputError) as raised:
        check_slurm(needs, partition)
    assert message in str(raised.value)


def test_a_slurm_that_does_not_answer(node, monkeypatch, tmp_path):
    (tmp_path / "slurm.conf").write_text(
        "ClusterName=none\nSlurmctldHost=127.0.0.1\nSlurmctldPort=1\nMessageTimeout=1\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(InputError, match="--executor slurm: Slurm does not answer: "):
        check_slurm(Needs(minutes=5), None)


def compare(root: Path) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, where Slurm is asked often."""
    program = "import sys, launch; from stepwise_jax.studies.executors import slurm; slurm.ASK_SECONDS = 0.5; "
    program += "sys.exit(launch.main(sys.argv[1:]))"
    words = [*WORDS, "--workdir", str(root), "--executor", "slurm", "--executor.partition", "debug"]
    command = [sys.executable, "-c", program, *words, "--executor.time", "10"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1000)


def test_a_disturbed_comparison_ends_as_the_undisturbed(node, undisturbed, tmp_path):
    """One run is killed, one cancelled, and one meets its time limit."""
    root, seen = tmp_path / "compared", list[str]()
    disturbances = [kill, cancel, reach_time_limit]
    threads = [
        threading.Thread(target=lambda act=act, folder=root / run: seen.append(act(folder)))
        for act, run in zip(disturbances, RUNS, strict=True)
    ]
    for each in threads:
        each.start()
    done = compare(root)
    for each in threads:
        each.join()
    assert sorted(seen) == ["cancelled", "killed", "stopped"]
    assert done.returncode == 1, done.stderr
    assert "stepwise, seed 0: FAILED: its process was killed by SIGKILL" in done.stderr
    assert "baseline, seed 0: FAILED: its Slurm job" in done.stderr
    assert "error: 2 of 3 runs failed" in done.stderr
    # Back in the queue before its limit, the third has finished.
    assert "stopped by SIGTERM after" in (root / "cosine" / "seed0.log").read_text()
    assert (root / "cosine" / "seed0" / "summary.json").exists()
    done = compare(root)
    assert done.returncode == 0, done.stderr
    assert states(root) == undisturbed


def training_process(folder: Path) -> int:
    """The process of a run in the middle of its epochs."""
    wait_for(lambda: epochs_of(folder) >= 2, f"{folder} has not recorded two epochs")
    process = find_process(folder)
    assert process is not None
    return process


def kill(folder: Path) -> str:
    os.kill(training_process(folder), signal.SIGKILL)
    return "killed"


def cancel(folder: Path) -> str:
    training_process(folder)
    subprocess.run(["scancel", slurm_id(folder)], check=True)
    return "cancelled"


def reach_time_limit(folder: Path) -> str:
    """Hold a run until Slurm has sent its signal, which it does within half a minute of a limit that comes nearer."""
    process = training_process(folder)
    os.kill(process, signal.SIGSTOP)
    minutes = 1 + int(job_fields(slurm_id(folder))["RunTime"].split(":")[1])
    set_time_limit(folder, minutes + 1)
    wait_for(lambda: signal.SIGTERM in pending_signals(process), "Slurm has sent no signal")
    # It is gone already where Slurm has let it continue.
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGCONT)
    wait_for(lambda: restarts(slurm_id(folder)) == 1, "the job is not back in the queue")
    # The limit stays with the job: the next start needs more time on a busy machine.
    set_time_limit(folder, 10)
    return "stopped"


def set_time_limit(folder: Path, minutes: int) -> None:
    subprocess.run(["scontrol", "update", f"JobId={slurm_id(folder)}", f"TimeLimit={minutes}"], check=True)


def slurm_id(folder: Path) -> str:
    return folder.with_name(folder.name + ".slurm").read_text()


def pending_signals(process: int) -> Sequence[int]:
    """The signals that a process has not seen yet; SIGTERM of one that has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return [signal.SIGTERM]
    lines = dict(line.split(":", 1) for line in text.splitlines())
    mask = int(lines["ShdPnd"], 16) | int(lines["SigPnd"], 16)
    return [number for number in range(1, 65) if mask >> (number - 1) & 1]
