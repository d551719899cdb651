"""Options of JAX from the environment: a run works under them, or says why not before it starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_package import ROOT, SMALL


def train(workdir: Path, data_dir: Path, **options: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "launch.py", "train", "digits", "--workdir", str(workdir), *SMALL]
    environment = {**os.environ, "TFDS_DATA_DIR": str(data_dir), **options}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("JAX_DISABLE_JIT", "1", "JAX_DISABLE_JIT is True: it must not be, because steps are compiled"),
        ("JAX_NUMPY_RANK_PROMOTION", "raise", "JAX_NUMPY_RANK_PROMOTION is 'raise': it must not be, because networks"),
        ("JAX_TRANSFER_GUARD", "disallow", "JAX_TRANSFER_GUARD is 'disallow': it must not be, because batches and"),
        ("JAX_ENABLE_X64", "maybe", "JAX cannot start (ValueError: invalid truth value 'maybe' for "),
        ("JAX_PLATFORMS", "abacus", "JAX cannot start (RuntimeError: Unable to initialize backend 'abacus': "),
    ],
)
def test_an_option_that_no_run_works_under_gets_one_sentence(
    option: str, value: str, message: str, data_dir: Path, tmp_path: Path
):
    done = train(tmp_path / "run", data_dir, **{option: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert option in done.stderr
    assert not (tmp_path / "run").exists()


def test_wide_numbers_and_a_check_for_nan_do_not_change_a_run(data_dir: Path, tmp_path: Path):
    states = []
    for name, options in {"plain": {}, "debugged": {"JAX_ENABLE_X64": "1", "JAX_DEBUG_NANS": "1"}}.items():
        done = train(tmp_path / name, data_dir, **options)
        assert done.returncode == 0, done.stderr
        states.append(json.loads((tmp_path / name / "summary.json").read_text())["state_sha256"])
    assert states[0] == states[1]
