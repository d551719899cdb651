"""How many files a process may open."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_RAISE = """
import json, resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard if {limit} is None else {limit}))
from stepwise_jax.runtime.process import raise_descriptor_limit
raise_descriptor_limit()
print(json.dumps([*resource.getrlimit(resource.RLIMIT_NOFILE), hard]))
"""


def limits(limit: int | None) -> list[int]:
    command = [sys.executable, "-c", _RAISE.format(limit=limit)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout)


def test_a_process_may_open_as_many_files_as_the_system_allows_it():
    assert limits(500)[:2] == [500, 500]
    soft, kept, hard = limits(None)
    assert kept == hard
    assert soft == (min(hard, 1 << 16) if hard > 0 else 1 << 16)
