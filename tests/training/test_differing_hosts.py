"""Processes that are about to train different runs, or see different files: all are refused, and none waits."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Once, write_images

from tests.training.test_many_hosts import command, free_port, run_processes

ROOT = Path(__file__).parents[2]
HERE = socket.gethostname()


def run_cases(folder: Path) -> list[dict[str, list[Any]]]:
    """For each process, by case: its exit status and its error."""
    for seed, name in enumerate(("images", "others")):
        write_images(folder / name / "train", 8, seed=2 * seed)
        write_images(folder / name / "test", 4, seed=2 * seed + 1)
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "tests/differing_hosts.py", str(folder), str(number), address],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        output = [process.communicate(timeout=280) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], output
    # Gloo prints lines, too.
    lines = [[json.loads(line) for line in text.splitlines() if line.startswith('["')] for text, _ in output]
    return [{name: rest for name, *rest in cases} for cases in lines]


@pytest.fixture(scope="module")
def both(once: Once) -> list[dict[str, list[Any]]]:
    return once("differing-hosts", run_cases)


@pytest.mark.parametrize(
    ("case", "name", "first", "second"),
    [
        ("seed", "seed", "0", "1"),
        ("plan.carry", "plan.carry", '"state"', '"weights"'),
        ("evaluation.every_epochs", "evaluation.every_epochs", "1", "2"),
        ("plan.decay_factor", "plan.decay_factor", "0.1", "0.5"),
        ("other weights", "the SHA-256 of the initial weights", '"', '"'),
        ("no weights", "the SHA-256 of the initial weights", '"', "null"),
        ("other images", "the SHA-256 of the images of the train examples", '"', '"'),
        ("another program", "the SHA-256 of the program", '"program False"', '"program True"'),
    ],
)
def test_what_differs_is_named_on_all_processes(case, name, first, second, both):
    (status, sentence), other = (process[case] for process in both)
    assert other == [status, sentence]
    assert status == 2
    assert sentence.startswith(f"{name} differs among the processes of this run: {first}"), sentence
    assert f" on process 0 on {HERE}, {second}" in sentence
    assert f" on process 1 on {HERE}" in sentence
    assert sentence.endswith(": start all of them with the same command, files and versions")


def test_a_host_without_the_data_stops_all(both):
    (status, sentence), (own_status, own_sentence) = (process["no images"] for process in both)
    assert status == own_status == 2
    assert "missing" in own_sentence
    assert sentence == f"process 1 on {HERE}: {own_sentence}"


def test_a_workdir_that_is_not_shared_is_refused_after_a_while(both):
    (status, sentence), (own_status, own_sentence) = (process["a workdir of its own"] for process in both)
    assert status == own_status == 2
    assert "is not the first process's: it must be on a file system that all processes share" in own_sentence
    assert sentence == f"process 1 on {HERE}: {own_sentence}"


def test_a_host_that_sees_the_workdir_later_waits_for_it(both):
    assert [process["a workdir that is seen later"] for process in both] == [[0, ""], [0, ""]]


def test_a_host_without_the_weights_ends_both_processes_with_the_same_status(tmp_path, data_dir):
    (tmp_path / "w.safetensors").touch()
    address = f"127.0.0.1:{free_port()}"
    files = [tmp_path / "w.safetensors", tmp_path / "missing.safetensors"]
    words = [["--coordinator", address, "--processes", "2", "--process-id", str(number)] for number in range(2)]
    commands = [
        command(tmp_path / "run", data_dir, *each, **{"model.initial_weights": str(file)})
        for each, file in zip(words, files, strict=True)
    ]
    output = run_processes(commands)
    assert [status for status, _ in output] == [2, 2], output
    assert "Traceback" not in "".join(text for _, text in output)
    assert all("error: " in text and "model.initial_weights" in text for _, text in output)


def without_configuration(words: list[str]) -> list[str]:
    return ["configs/missing.py" if word.startswith("configs/") else word for word in words]


def with_misspelt_field(words: list[str]) -> list[str]:
    return [*words, "--plan.batchsize", "8"]


@pytest.mark.parametrize(
    ("broken", "change", "message"),
    [
        (0, without_configuration, "missing.py"),
        (1, with_misspelt_field, "--plan.batchsize is no field of the experiment"),
    ],
)
def test_a_host_whose_configuration_cannot_be_read_ends_both_processes(tmp_path, data_dir, broken, change, message):
    address = f"127.0.0.1:{free_port()}"
    words = [["--coordinator", address, "--processes", "2", "--process-id", str(number)] for number in range(2)]
    commands = [command(tmp_path / "run", data_dir, *each) for each in words]
    commands[broken] = change(commands[broken])
    output = run_processes(commands)
    assert [status for status, _ in output] == [2, 2], output
    assert "Traceback" not in "".join(text for _, text in output)
    # Gloo prints lines, too.
    own, other = (
        next(line for line in output[number][1].splitlines() if line.startswith("error: "))
        for number in (broken, 1 - broken)
    )
    assert message in own
    assert other == own.replace("error: ", f"error: process {broken} on {HERE}: ")
    assert not (tmp_path / "run").exists()


ALONE = """
import sys
from stepwise_jax.cli.main import main
from stepwise_jax.runtime import multihost

multihost._CONNECT_FAILED_SECONDS = 1
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("process", ["0", "1"])
def test_a_process_that_cannot_train_does_not_wait_long_for_the_others(tmp_path, process):
    words = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process-id", process]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "train", "configs/missing.py", "--workdir", str(tmp_path / "run"), *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        # JAX would wait for 300 s.
        timeout=200,
    )
    assert done.returncode == 2, done.stderr
    first, last = done.stderr.strip().splitlines()
    assert first.startswith("waiting at 127.0.0.1:")
    assert last.startswith("error: ")
    assert first.endswith(
        f"for the other processes of this run, 1 s at most, to say that this one cannot train: {last[7:]}"
    )
