"""A process that starts itself anew, once, with the setting that it was to have."""

import os
import subprocess
import sys

import pytest

from stepwise_jax import huge_pages

PROGRAM = """
import os, pathlib, sys
from stepwise_jax import huge_pages
huge_pages._SETTING = pathlib.Path(sys.argv[1])
print("start", flush=True)
huge_pages.start_anew_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[2:], flush=True)
"""


def started(tmp_path, setting: str, **environment: str) -> list[str]:
    (tmp_path / "enabled").write_text(setting)
    inherited = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "enabled"), "a b", "--c"]
    return subprocess.run(
        command, env={**inherited, **environment}, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is Linux's")
def test_it_starts_anew_once_where_pages_are_given_on_request(tmp_path):
    lines = started(tmp_path, "always [madvise] never\n")
    assert lines == ["start", "start", f"{huge_pages.TUNABLE} ['a b', '--c']"]


@pytest.mark.parametrize(
    ("setting", "environment"),
    [
        ("[always] madvise never\n", {}),
        ("always madvise [never]\n", {}),
        ("always [madvise] never\n", {"GLIBC_TUNABLES": "glibc.malloc.check=0"}),
    ],
)
def test_it_goes_on_elsewhere(tmp_path, setting, environment):
    lines = started(tmp_path, setting, **environment)
    assert lines == ["start", f"{environment.get('GLIBC_TUNABLES')} ['a b', '--c']"]
