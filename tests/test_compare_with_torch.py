"""The comparison with PyTorch: its budget, its arithmetic, and a whole one against a stand-in for PyTorch's side."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import compare_with_torch
import compared_cells
import pytest

ROOT = Path(__file__).parents[1]
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


def test_both_sides_take_turns_and_failures_stay_in_their_cells(tmp_path):
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


def test_other_networks_are_not_compared(tmp_path):
    done = run("--torch-python", stand_in(tmp_path, 3), *TINY, *QUICK)
    assert done.returncode == 1
    assert f"the networks differ: {PARAMETERS:,} parameters here, 3 in PyTorch's" in done.stdout
    assert "resnet18 at batch 4; resnet18 at batch 8; resnet18: the networks differ" in done.stdout


def test_there_must_be_a_pytorch():
    done = run("--torch-python", "/no/such/python")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("--torch-python /no/such/python: there is no such program")


def test_a_wave_is_begun_only_in_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(compare_with_torch.time, "monotonic", lambda: now[0])
    budget = compare_with_torch.Budget(100)
    assert budget.allows_another()
    now[0] = 40.0
    budget.note(40)
    budget.note(10)
    assert budget.left() == 60
    assert budget.allows_another()
    now[0] = 61.0
    assert not budget.allows_another()


def test_large_batches_are_prepared_two_networks_at_a_time():
    waves = list(compare_with_torch.waves((96, 256), ["a", "b", "c"]))
    assert waves == [(96, ["a", "b", "c"]), (256, ["a", "b"]), (256, ["c"])]


def test_ratios_are_medians_over_rounds_of_their_time_over_ours():
    ours, theirs, single = ("jax", "run"), ("torch", "eager"), ("jax", "single")
    cell = compared_cells.Cell("resnet50", 24, steps=dict.fromkeys((ours, theirs, single), 1))
    cell.prepared = dict.fromkeys((ours, theirs, single), 7.0)
    for mine, other in ((0.1, 0.2), (0.2, 0.2), (0.1, 0.3)):
        times = {ours: mine, theirs: other, single: 1.0}
        cell.rounds.append({key: {"wall": wall, "cpu": 4 * wall} for key, wall in times.items()})
    row = cell.row()
    assert row["ratios"] == {"eager": pytest.approx(2.0)}
    assert row["cpu_ratios"] == {"eager": pytest.approx(2.0)}
    assert row["variants"]["ours"]["images_per_second"] == pytest.approx(240)
    assert row["variants"]["eager"]["least_milliseconds"] == pytest.approx(200)
    assert row["variants"]["ours_single"]["cpu_milliseconds"] == pytest.approx(4000)
    document = {"steps_per_call": 32, "device": "NVIDIA H200", "rows": [row], "left_out": ["resnet50 at batch 72"]}
    document |= {"image_size": 224, "precision": "bfloat16", "date": "today", "seconds": 3.0}
    told = compared_cells.report(document)
    assert "| resnet50 | 24 | 240 | 24 | 120 | – | – | 2.00 | – | – |" in told
    assert "Left out: resnet50 at batch 72" in told
    assert "2,470 images/s on one A100-80G" in told
