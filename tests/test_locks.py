"""The two lock files, what running needs and that with the development tools, and their installation."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def locked(name: str, python: str) -> dict[str, str]:
    """The version of each package that `name` gives a Python on Linux."""
    machine: dict[str, str | AbstractSet[str]] = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "extra": "",
    }
    lines = re.findall(r"^([a-z0-9].*?)\s*\\?$", (ROOT / name).read_text(), flags=re.MULTILINE)
    requirements = [Requirement(line) for line in lines]
    return {
        each.name: str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate(machine)
    }


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_development_lock_adds_to_the_other_and_agrees_with_it(python):
    running, development = (locked(name, python) for name in ("requirements.lock", "requirements-dev.lock"))
    assert {"jax", "flax", "numpy"} <= running.keys()
    assert running.items() <= development.items()
    assert {"pytest", "ruff", "pyright", "zensical"} <= development.keys() - running.keys()


def test_locks_name_no_place_to_fetch_from():
    for name in ("requirements.lock", "requirements-dev.lock"):
        assert not re.search(r"://|--(extra-)?index|--find-links", (ROOT / name).read_text())


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_python_that_cannot_make_environments_gets_a_sentence(tmp_path):
    (tmp_path / "ensurepip.py").write_text("raise ImportError\n")
    words = ["make", ".venv", f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}"]
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot make an environment, because it lacks the module venv or ensurepip" in done.stderr
    assert not (tmp_path / "venv").exists()
