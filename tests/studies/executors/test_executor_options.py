"""What `--executor` refuses, before anything starts; and the time limit and the array of Slurm's jobs."""

import importlib
from pathlib import Path

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.studies.executors import options, slurm_commands
from stepwise_jax.studies.executors.local import LocalExecutor
from stepwise_jax.studies.executors.options import ExecutorOptions, make_executor
from stepwise_jax.studies.executors.ray import connect
from stepwise_jax.studies.executors.slurm_array import make_parameters
from stepwise_jax.studies.jobs import Needs
from tests.cli.command_line import DIGITS, fails
from tests.studies.executors.engines import free_ports


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--executor", "slrum"], "--executor is 'slrum': it must be one of local, slurm, ray"),
        (
            ["--executor.partition", "gpu"],
            "--executor.partition is an option of --executor slurm: leave it out with local",
        ),
        (["--executor.gpus", "1"], "--executor.gpus is an option of --executor slurm or ray: leave it out with local"),
        (["--executor", "ray", "--executor.time", "5"], "--executor.time is an option of --executor slurm"),
        (["--executor", "ray", "--executor.cpus", "0"], "--executor.cpus is 0: it must be at least 1"),
        (["--executor", "slurm", "--executor.gpus", "-1"], "--executor.gpus is -1: it must be at least 0"),
    ],
)
@pytest.mark.parametrize("command", [["compare"], ["sweep", "--grid", "plan.batch_size=8"]], ids=["compare", "sweep"])
def test_options_that_contradict_leave_no_folder(capsys, tmp_path, command, words, message):
    name, *more = command
    assert message in fails(capsys, name, DIGITS, "--workdir", str(tmp_path / "new"), *more, *words)
    assert not (tmp_path / "new").exists()


def test_a_search_on_a_cluster_says_how_many_points_at_a_time(capsys, tmp_path):
    words = ["sweep", DIGITS, "--workdir", str(tmp_path / "new"), "--trials", "3", "--executor", "ray"]
    assert "--processes is 0: it must be at least 1 with --trials" in fails(capsys, *words)


def test_a_design_is_planned_nowhere(capsys, tmp_path):
    words = ["compare", DIGITS, "--plan-design", str(tmp_path / "d.toml"), "--executor", "slurm"]
    assert "--plan-design writes a design and trains nothing: leave out --executor" in fails(capsys, *words)


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_named(monkeypatch, tmp_path, name, package):
    def missing(_: str):
        raise ImportError

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError) as raised:
        make_executor(ExecutorOptions(name), tmp_path)
    assert str(raised.value) == f"--executor {name} needs {package}: pip install 'stepwise-jax[{name}]'"


def test_a_machine_without_slurm(monkeypatch, tmp_path):
    monkeypatch.setattr(options, "_import_extra", lambda *_: None)
    with pytest.raises(InputError, match=r"--executor.time is None: it must be the minutes"):
        make_executor(ExecutorOptions("slurm"), tmp_path)
    monkeypatch.setattr(slurm_commands.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match="this machine has no Slurm: the command sbatch is not found"):
        make_executor(ExecutorOptions("slurm", time=5), tmp_path)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("head", "--executor.address is 'head': it must be HOST:PORT of a Ray cluster"),
        ("127.0.0.1:{}", "which cannot be reached: Connection refused"),
    ],
)
def test_an_address_without_a_cluster(address, message):
    with pytest.raises(InputError) as raised:
        connect(None, address.format(*free_ports(1)))
    assert message in str(raised.value)


def test_this_machine_is_the_default(tmp_path):
    assert isinstance(make_executor(ExecutorOptions(processes=2), tmp_path), LocalExecutor)
    assert make_executor(ExecutorOptions(processes=2), Path()).room() == 2


def test_a_job_is_told_to_stop_before_its_time_limit():
    long = make_parameters(Needs(gpus=1, cpus=4, minutes=480), "gpu", 8)
    assert long["additional_parameters"]["signal"] == "TERM@120"
    assert (long["partition"], long["gpus_per_node"], long["time"], long["array_parallelism"]) == ("gpu", 1, 480, 8)
    # In a short one a run gets half of the time.
    short = make_parameters(Needs(minutes=2), None, 8)
    assert short["additional_parameters"]["signal"] == "TERM@60"
    assert not {"partition", "gpus_per_node"} & set(short)
