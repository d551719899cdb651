"""Jobs on a real Ray cluster of a head and two workers, one of which is killed, and then a whole node."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.studies.executors.engines import find_process, parent_of, ray_cluster, wait_for
from tests.studies.executors.small_comparison import ROOT, RUNS, WORDS, epochs_of, states
from tests.studies.executors.small_comparison import undisturbed as undisturbed


def compare(root: Path, address: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: Ray's warnings are its own affair."""
    words = [*WORDS, "--workdir", str(root), "--executor", "ray", "--executor.address", address]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "launch.py", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


def test_a_comparison_that_loses_a_worker_and_a_node_ends_as_the_undisturbed(undisturbed, tmp_path):
    root, killed = tmp_path / "compared", list[str]()

    def kill(run: str, generation: int) -> None:
        """Kill the worker (1) or the node (2) on which a run is in the middle of its epochs."""
        wait_for(lambda: epochs_of(root / run) >= 2, f"{run} has not recorded two epochs")
        process = find_process(root / run)
        assert process is not None
        for _ in range(generation):
            process = parent_of(process)
        os.kill(process, signal.SIGKILL)
        killed.append(run)

    threads = [threading.Thread(target=kill, args=each) for each in zip(RUNS[:2], (1, 2), strict=True)]
    with ray_cluster() as address:
        for each in threads:
            each.start()
        done = compare(root, address)
        for each in threads:
            each.join()
    assert done.returncode == 0, done.stderr
    assert sorted(killed) == sorted(RUNS[:2])
    for name in ("stepwise", "baseline"):
        assert f"{name}, seed 0: starts again: its Ray worker was lost" in done.stderr
    # The run of a worker notices that it is gone; with a node its processes may end at once.
    assert "stopped by SIGTERM after" in (root / "stepwise" / "seed0.log").read_text()
    assert states(root) == undisturbed
