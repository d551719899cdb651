"""The short form of the soak: a few kills of a run of two small stages (the long one is in docs/reliability.md)."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_run_killed_three_times_is_the_undisturbed_one_to_the_bit():
    words = [sys.executable, "benchmarks/soak.py", "--kills", "3", "--seed", "3", "--epochs", "24", "--json"]
    words += ["--data.image_size", "8", "--model.width", "4", "--model.blocks", "1", "--plan.fractions", "0.5", "1"]
    words += ["--plan.batch_multipliers", "1", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == sum(found["moments"].values()) == 3
    assert found["differences"] == []
    assert found["state_sha256"]["undisturbed"] == found["state_sha256"]["killed"]
