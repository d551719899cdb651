"""Training outlives its audience: closed streams, a full disk below the log, a terminal that has gone."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_package import ROOT, SMALL


def train(data_dir: Path, workdir: Path, redirections: str, stream: int | None) -> int:
    """The exit status of a small run, whose standard streams are `stream`, then redirected."""
    launch = [sys.executable, str(ROOT / "launch.py"), "train", str(ROOT / "configs" / "digits.py")]
    words = ["sh", "-c", f'exec "$@" {redirections}', "sh", *launch, "--workdir", str(workdir), *SMALL]
    environment = {**os.environ, "TFDS_DATA_DIR": str(data_dir), "TERM": "xterm"}
    # Without a controlling terminal, so that SIGHUP does not reach the process.
    done = subprocess.run(
        words, env=environment, stdin=stream, stdout=stream, stderr=stream, start_new_session=True, check=False
    )
    return done.returncode


def check_finished(workdir: Path) -> None:
    summary = json.loads((workdir / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["50%", "O"]
    assert (workdir / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(("redirections", "status"), [(">&- 2>&-", 0), (">/dev/full 2>/dev/full", 1)])
def test_a_run_without_readers_finishes(redirections: str, status: int, data_dir: Path, tmp_path: Path):
    assert train(data_dir, tmp_path / "run", redirections, subprocess.DEVNULL) == status
    check_finished(tmp_path / "run")


def test_a_run_whose_terminal_has_gone_finishes(data_dir: Path, tmp_path: Path):
    leader, follower = pty.openpty()
    os.close(leader)
    try:
        assert train(data_dir, tmp_path / "run", "", follower) == 1
    finally:
        os.close(follower)
    check_finished(tmp_path / "run")


@pytest.mark.parametrize(
    ("redirections", "status", "message"),
    [(">&-", 0, ""), (">/dev/full", 1, "error: the output: No space left on device\n"), ("2>&-", 0, "")],
)
def test_a_result_that_cannot_be_printed_is_no_traceback(redirections: str, status: int, message: str):
    words = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, str(ROOT / "launch.py"), "plan", "digits"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, message)
