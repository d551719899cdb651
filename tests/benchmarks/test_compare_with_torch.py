"""The comparison with PyTorch: its time, its arithmetic, and a whole one against a stand-in for PyTorch's side."""

import argparse
import json
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import compare_with_torch
import compared_cases
import lane
import pytest
import worker

ROOT = Path(__file__).parents[2]
TINY = ["resnet18", "--width", "4", "--blocks", "1,1", "--batch-sizes", "4,8", "--classes", "5"]
QUICK = ["--rounds", "2", "--turn-seconds", "0.01"]
# Stem 108 and norm 8, a block of 304 and one of 944 with its shortcut, head 45.
PARAMETERS = 1409

# Answers as PyTorch's side does; one variant cannot be prepared at batch 8.
STAND_IN = """
import os, sys, time
sys.path.insert(0, {benchmarks!r})
from worker import serve
class Side:
    def describe(self): return {{"parameters": {parameters}, "versions": {{"torch": "0", "timm": "0"}}}}
    def prepare(self, batch_size, variant):
        if (batch_size, variant) == (8, "compiled"): raise RuntimeError("no compiler")
    def run(self, batch_size, variant, steps): time.sleep(0.001 * steps)
    def rest(self): pass
    def drop(self, batch_size): pass
serve(Side(), sys.stdin, sys.stdout)
"""


def stand_in(folder: Path, parameters: int) -> str:
    script, program = folder / "side.py", folder / "python"
    script.write_text(STAND_IN.format(benchmarks=str(ROOT / "benchmarks"), parameters=parameters))
    program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))}\n")
    program.chmod(0o755)
    return str(program)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "compare_with_torch.py"), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_both_sides_take_turns_and_failures_stay_in_their_cases(tmp_path):
    out = tmp_path / "kept"
    done = run("--torch-python", stand_in(tmp_path, PARAMETERS), *TINY, *QUICK, "--out", str(out))
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "compare_with_torch.json").read_text())
    assert (document["device"], document["precision"], document["image_size"]) == ("cpu", "float32", 32)
    small, large = document["rows"]
    assert (small["batch_size"], large["batch_size"], small["rounds"]) == (4, 8, 2)
    assert set(small["variants"]) == {"ours", "eager", "channels_last", "compiled"}
    assert set(large["variants"]) == {"ours", "eager", "channels_last"}
    assert large["errors"] == {"compiled": "RuntimeError: no compiler"}
    for row in document["rows"]:
        # Two rounds: a ratio lies between the fastest and the slowest of them, and the stand-in sleeps.
        assert all(speed["images_per_second"] > 0 for speed in row["variants"].values())
        assert row["variants"]["eager"]["milliseconds"] >= 1
        assert set(row["ratios"]) == set(row["variants"]) - {"ours"}
    assert document["left_out"] == []
    assert "| resnet18 | 8 |" in done.stdout
    assert "resnet18 at batch 8, compiled: RuntimeError: no compiler" in done.stdout
    assert "2,470" not in done.stdout


def test_networks_beside_each_other_in_several_processes_each(tmp_path):
    given = dict(compare_with_torch.ON_GPU, networks=["resnet18", "resnet34"], batch_sizes=(4, 8), image_size=32)
    given |= {"width": 4, "blocks": [1, 1], "classes": 5, "steps_per_call": 2, "small_images": True, "device": "cuda"}
    given |= {"torch_python": stand_in(tmp_path, PARAMETERS), "compile_mode": "default", "minutes": 2, "out": None}
    document = compare_with_torch.compare(argparse.Namespace(**given, rounds=1))
    assert [(row["network"], row["batch_size"]) for row in document["rows"]] == [
        ("resnet18", 4),
        ("resnet18", 8),
        ("resnet34", 4),
        ("resnet34", 8),
    ]
    for row in document["rows"]:
        compiled = ["compiled"] if row["batch_size"] == 4 else []
        assert set(row["ratios"]) == {"eager", "channels_last", *compiled}
    assert document["left_out"] == []


def test_other_networks_are_not_compared(tmp_path):
    done = run("--torch-python", stand_in(tmp_path, 3), *TINY, *QUICK)
    assert done.returncode == 1
    assert f"the networks differ: {PARAMETERS:,} parameters here, 3 in PyTorch's" in done.stdout
    assert "resnet18 at batch 4; resnet18 at batch 8; resnet18: the networks differ" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-sizes", "24,x"], "24,x: positive whole numbers with commas between"),
        (["--image-size", "-3"], "-3: a positive whole number"),
        (["--minutes", "nan"], "--turn-seconds and --minutes must be positive"),
        (["--turn-seconds", "0"], "--turn-seconds and --minutes must be positive"),
        (["--out", __file__], f"--out {__file__}: File exists"),
    ],
)
def test_bad_input_is_reported_before_anything_starts(words, message):
    done = run("--torch-python", sys.executable, *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(message)


def test_there_must_be_a_pytorch():
    done = run("--torch-python", "/no/such/python")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("--torch-python /no/such/python: there is no such program")


class Slow(worker.Worker):
    """Stands in for a process: each request takes so many seconds of the pretended clock, or fails."""

    def __init__(self, now: list[float], seconds: list[float], failures: dict[int, str]):
        self._now, self._seconds, self._failures, self.asked = now, seconds, failures, []

    def send(self, *request: object) -> None:
        self.asked.append(request)

    def receive(self, seconds: float) -> None:
        self._now[0] += self._seconds[len(self.asked) - 1]
        if why := self._failures.get(len(self.asked)):
            raise worker.WorkerError(why)


@pytest.fixture
def now(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(lane.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(lane.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    return clock


@pytest.mark.parametrize(("deadline", "begun"), [(58, 1), (61, 3), (109, 3), (110, 4)])
def test_nothing_is_prepared_that_would_end_too_late(now, deadline, begun):
    # The second is expected to take half of the first, any other as long as the one before it.
    slow, sizes = Slow(now, [40, 10, 30, 5], {}), (96, 24, 48, 72)
    made = lane.Lane("resnet50", "jax", slow, [(size, "run") for size in sizes])
    made.prepare(deadline, 200, threading.Semaphore(1))
    assert slow.asked == [("prepare", size, "run") for size in sizes[:begun]]
    assert list(made.ready.values()) == [40, 10, 30, 5][:begun]
    assert made.errors == {(size, "run"): "was not ready in time" for size in sizes[begun:]}


def test_a_step_without_room_is_tried_again_and_another_failure_is_not(now):
    slow = Slow(now, [1, 1, 1], {1: "OutOfMemoryError: CUDA out of memory", 3: "RuntimeError: no compiler"})
    made = lane.Lane("resnet50", "torch", slow, [(256, "eager"), (24, "eager")])
    made.prepare(100, 100, threading.Semaphore(1))
    assert (list(made.ready), made.errors) == ([(256, "eager")], {(24, "eager"): "RuntimeError: no compiler"})
    hopeless = Slow(now, [1, 1, 1, 1], dict.fromkeys(range(1, 5), "RESOURCE_EXHAUSTED: 40 GB"))
    made = lane.Lane("resnet50", "jax", hopeless, [(24, "run")])
    made.prepare(100, 100, threading.Semaphore(1))
    assert made.errors == {(24, "run"): "RESOURCE_EXHAUSTED: 40 GB"}
    assert len(hopeless.asked) == 3


def test_large_batches_are_prepared_a_few_at_a_time():
    most, busy, lock = [0], [0], threading.Lock()

    class Counted(Slow):
        def receive(self, seconds: float) -> None:
            with lock:
                busy[0] += 1
                most[0] = max(most[0], busy[0])
            time.sleep(0.05)
            with lock:
                busy[0] -= 1

    made = [lane.Lane(str(each), "torch", Counted([], [], {}), [(256, "eager")]) for each in range(5)]
    lane.prepare_all(made, time.monotonic() + 100, time.monotonic() + 100, large_at_once=2)
    assert all(list(each.ready) == [(256, "eager")] for each in made)
    assert most == [2]


def test_on_a_gpu_each_side_has_two_processes_and_each_cell_one_place():
    options = argparse.Namespace(device="cuda", batch_sizes=(96, 24, 256))
    made = compare_with_torch.lanes(options)
    assert made[:2] == [("jax", [(96, "run"), (256, "run")]), ("jax", [(24, "run")])]
    jobs = [(library, *job) for library, part in made for job in part]
    assert len(jobs) == len(set(jobs)) == 12
    alone = compare_with_torch.lanes(argparse.Namespace(device="cuda", batch_sizes=(96,)))
    assert [library for library, _ in alone] == ["jax", "torch"]


def test_ratios_are_medians_over_rounds_of_their_time_over_ours():
    ours, theirs = ("jax", "run"), ("torch", "eager")
    case = compared_cases.Case("resnet50", 24, steps=dict.fromkeys((ours, theirs), 1))
    case.prepared = dict.fromkeys((ours, theirs), 7.0)
    for mine, other in ((0.1, 0.2), (0.2, 0.2), (0.1, 0.3)):
        times = {ours: mine, theirs: other}
        case.rounds.append({key: {"wall": wall, "cpu": 4 * wall} for key, wall in times.items()})
    row = case.row()
    assert row["ratios"] == {"eager": pytest.approx(2.0)}
    assert row["cpu_ratios"] == {"eager": pytest.approx(2.0)}
    assert row["variants"]["ours"]["images_per_second"] == pytest.approx(240)
    assert row["variants"]["eager"]["least_milliseconds"] == pytest.approx(200)
    assert row["variants"]["eager"]["cpu_milliseconds"] == pytest.approx(800)
    document = {"steps_per_call": 32, "device": "NVIDIA H200", "rows": [row], "left_out": ["resnet50 at batch 72"]}
    document |= {"image_size": 224, "precision": "bfloat16", "date": "today", "seconds": 3.0}
    message = compared_cases.report(document)
    assert "| resnet50 | 24 | 240 | 120 | – | – | 2.00 | – | – |" in message
    assert "Left out: resnet50 at batch 72" in message
    assert "2,470 images/s on one A100-80G" in message


def test_names_of_torchvision_that_stop_timm_are_listed(tmp_path):
    (tmp_path / "timm.py").write_text(
        "from torchvision.transforms import InterpolationMode\nimport torchvision.ops\nmax(torchvision.ops.nms)\n"
    )
    script = f"import sys; sys.path[:0] = {[str(tmp_path), str(ROOT / 'benchmarks')]}; import torch_side\n"
    script += "torch_side.import_timm()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: timm cannot be imported with the stand-in for torchvision of torch_side.py (TypeError: "
        "'_Anything' object is not iterable): another version of timm may need less of it; this one reads, the last "
        "first, torchvision.ops.nms, torchvision.transforms.InterpolationMode"
    )
