"""Runs of several processes on this machine: they are stopped and killed, and go on in another number.

What they compute is compared with one process that is never stopped: in float64 where they part and go on, so that the
order of sums over devices does not show.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Once

import launch
from stepwise_jax.workdir import record_file

ROOT = Path(__file__).parents[2]
LONG = "STEPWISE_LONG_TESTS" in os.environ


def is_free(port: int) -> bool:
    with socket.socket() as listening:
        return listening.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def run_processes(commands: Sequence[Sequence[str]], **variables: Sequence[str]) -> list[tuple[int, str]]:
    """Exit status and stderr of processes that run at the same time; of each variable every one has its own value."""
    started = []
    for number, words in enumerate(commands):
        own = {name: values[number] for name, values in variables.items()}
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | own
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=quiet, stderr=subprocess.PIPE, text=True)
        started.append(process)
    try:
        output = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, output, strict=True)]


def run_wide(workdir: Path, data_dir: Path, strikes: Sequence[str]) -> list[tuple[int, str]]:
    """A run in float64 (`on_hosts`); each process may be struck, by `"300 QUOTA"` after 300 examples, say."""
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "tests/on_hosts.py", str(workdir), str(data_dir), str(len(strikes))]
    return run_processes([[*words, str(number), address, *at.split()] for number, at in enumerate(strikes)])


def left_behind(workdir: Path) -> dict[str, Any]:
    rows = record_file.read_records(workdir)
    return {
        "losses": [row["train_loss"] for row in rows.epochs],
        "probabilities": np.load(workdir / "predictions.npz")["probabilities"].tolist(),
        "noise": [[row["trace"], *row["trace_interval"], row["squared_norm"]] for row in rows.noise],
        "events": [event["name"] for event in rows.events],
        "resumed": [event["message"] for event in rows.events if event["name"] == "resume"],
    }


def saved(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


@pytest.fixture(scope="module")
def moved(once: Once, data_dir: Path) -> dict[str, Any]:
    """A run of one process, then of two, of which one is told to stop, killed, or may not write, then of one."""

    def run(folder: Path) -> dict[str, Any]:
        workdir = folder / "moved"
        (alone,) = run_wide(workdir, data_dir, ["100 SIGTERM"])
        stopped, first = run_wide(workdir, data_dir, ["", "300 SIGTERM"]), saved(workdir)[-1]
        killed, second = run_wide(workdir, data_dir, ["", "500 SIGKILL"]), saved(workdir)[-1]
        full = [run_wide(workdir, data_dir, at) for at in (["", "600 QUOTA"], ["700 QUOTA", ""])]
        third = saved(workdir)[-1]
        (ended,) = run_wide(workdir, data_dir, [""])
        (whole,) = run_wide(folder / "whole", data_dir, [""])
        assert [alone[0], ended[0], whole[0]] == [75, 0, 0], (alone, ended, whole)
        runs = {name: left_behind(folder / name) for name in ("moved", "whole")}
        return runs | {"stopped": stopped, "killed": killed, "full": full, "saved": [first, second, third]}

    return once("moved", run)


def test_a_signal_to_one_process_stops_all_at_the_same_step(moved):
    (status, output), (other_status, other_output) = moved["stopped"]
    assert status == other_status == 75
    message = f"stopped by SIGTERM after {moved['saved'][0]} updates: run the same command to continue"
    assert f"error: {message}" in output
    assert f"error: {message}" in other_output


def test_a_process_that_is_killed_ends_the_others_and_the_run_resumes_on_one(moved):
    (survivor, _), (killed, _) = moved["killed"]
    assert killed == -signal.SIGKILL
    assert survivor not in (0, 75)
    assert moved["moved"]["resumed"][2] == f"resuming after {moved['saved'][1]} of 50 updates"
    assert moved["saved"][1] >= moved["saved"][0]


@pytest.mark.parametrize("struck", [1, 0])
def test_a_save_that_fails_on_one_process_ends_all_and_the_run_resumes_from_the_one_before(struck, moved):
    output = moved["full"][0 if struck else 1]
    status, sentence = output[struck]
    assert status == 1, output
    # Which of its files a process is refused first is a matter of the moment.
    refused = r"(the checkpoint|records\.jsonl) cannot be written \(File too large\): run the same command"
    assert re.search(f"error: process {struck} of 2: {refused}", sentence), output
    assert output[1 - struck][0] not in (0, 75), output
    assert "Traceback" not in output[0][1] + output[1][1]
    *_, last = moved["moved"]["resumed"]
    assert last == f"resuming after {moved['saved'][2]} of 50 updates"
    assert moved["saved"][2] >= moved["saved"][1]


def test_a_run_that_moves_between_one_and_two_processes_ends_where_one_process_does(moved):
    ours, theirs = moved["moved"], moved["whole"]
    assert ours["events"].count("resume") == 5
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-12)
    # Scores are computed in float32.
    np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], atol=1e-6)
    np.testing.assert_allclose(ours["noise"], theirs["noise"], rtol=1e-9)
    assert len(ours["noise"]) == 6


FIELDS = {
    "data.image_size": "8",
    "model.width": "4",
    "model.blocks": "1",
    "plan.fractions": "0.5 1",
    "plan.batch_multipliers": "2 1",
    "plan.batch_size": "72",
    "plan.learning_rate": "0.005",
    "plan.epochs_per_stage": "1",
    "plan.decay_every": "1",
    "evaluation.batch_size": "72",
}


def command(workdir: Path, data_dir: Path, *more: str, **changes: str) -> list[str]:
    words = [sys.executable, "launch.py", "train", "configs/digits.py", "--workdir", str(workdir), *more]
    for name, value in (FIELDS | {"data.data_dir": str(data_dir)} | changes).items():
        words += [f"--{name}", *value.split()]
    return words


def slurm(count: int) -> dict[str, list[str]]:
    """The variables by which Slurm tells each of its tasks where it stands."""
    # JAX derives the port from the job's number, among the last 4096 that there are.
    job = str(next(job for job in range(os.getpid(), os.getpid() + 4096) if is_free(61440 + job % 4096)))
    each = [str(number) for number in range(count)]
    same = {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count)}
    return {name: [value] * count for name, value in same.items()} | {"SLURM_PROCID": each, "SLURM_LOCALID": each}


@pytest.mark.parametrize(
    "count", [2, pytest.param(4, marks=pytest.mark.skipif(not LONG, reason="STEPWISE_LONG_TESTS is not set"))]
)
def test_tasks_of_slurm_train_together_what_one_process_trains_alone(count, tmp_path, data_dir, once):
    def alone(folder: Path) -> dict[str, Any]:
        ((status, output),) = run_processes([command(folder / "run", data_dir)])
        assert status == 0, output
        return left_behind(folder / "run")

    on_all_processes = run_processes([command(tmp_path / "run", data_dir, "--distributed")] * count, **slurm(count))
    assert [status for status, _ in on_all_processes] == [0] * count, on_all_processes
    ours, theirs = left_behind(tmp_path / "run"), once("alone", alone)
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-4)
    np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], atol=1e-4)
    assert ours["events"].count("start") == ours["events"].count("done") == 1, "one process alone keeps records"
    assert all("top-1" not in output for _, output in on_all_processes[1:]), "one process alone shows what is going on"
    device = json.loads((tmp_path / "run" / "config.json").read_text())["device"]
    assert device == f"{count} x cpu"


def test_what_the_first_process_refuses_is_reported_by_both(tmp_path, data_dir):
    (tmp_path / "photo.jpg").touch()
    address = f"127.0.0.1:{free_port()}"
    words = [["--coordinator", address, "--processes", "2", "--process-id", str(number)] for number in range(2)]
    output = run_processes([command(tmp_path, data_dir, *each) for each in words])
    assert [status for status, _ in output] == [2, 2], output
    refusal = f"--workdir {tmp_path} is not empty and holds no run"
    assert f"error: {refusal}" in output[0][1]
    assert f"error: process 0 on {socket.gethostname()}: {refusal}" in output[1][1]
    assert "Traceback" not in "".join(text for _, text in output)


HERE = ["--coordinator", "localhost:1", "--processes", "2", "--process-id", "0"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            HERE[:2],
            "--processes and --process-id must be given, too",
        ),
        ([*HERE, "--coordinator", "localhost"], "--coordinator is 'localhost': it must be HOST:PORT"),
        ([*HERE, "--coordinator", "localhost:99999"], "--coordinator is 'localhost:99999': it must be HOST:PORT"),
        ([*HERE, "--processes", "0"], "--processes is 0: it must be at least 1"),
        ([*HERE, "--process-id", "2"], "--process-id is 2: it must be between 0 and 1"),
        (["--distributed", "--heartbeat", "0"], "--heartbeat is 0: it must be at least 1 second"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(words, sentence, tmp_path, capsys):
    assert launch.main(["train", "configs/digits.py", "--workdir", str(tmp_path / "run"), *words]) == 2
    assert f"error: {sentence}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_a_process_that_waits_for_the_others(number, status, tmp_path):
    words = [sys.executable, "launch.py", "train", "configs/digits.py", "--workdir", str(tmp_path / "run")]
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process-id", "0"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    waiting = subprocess.Popen([*words, *place], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert waiting.stderr is not None
        assert any("waiting at" in line for line in waiting.stderr)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
        waiting.send_signal(number)
        # Without the others JAX would wait for 300 s.
        _, output = waiting.communicate(timeout=60)
    finally:
        waiting.kill()
    assert waiting.returncode == status
    assert f"stopped by {number.name} while no training was running" in output


def test_a_process_without_a_cluster_is_refused(tmp_path):
    """In a process of its own: JAX joins others only before it has looked for devices."""
    words = [sys.executable, "launch.py", "train", "configs/digits.py", "--workdir", str(tmp_path / "run")]
    done = subprocess.run([*words, "--distributed"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "error: --distributed: no cluster detected" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
