import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import gc, runpy, sys
sys.argv = ["launch.py", "--help"]
before = gc.get_threshold()
try:
    runpy.run_path("launch.py", run_name="__main__")
except SystemExit:
    after = gc.get_threshold()
print(after[0] >= 10 * before[0] and after[2] > before[2], file=sys.stderr)
"""


def test_a_command_looks_for_garbage_seldom():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["True"]
