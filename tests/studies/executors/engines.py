"""Real engines on this machine: a Slurm of one node, and a Ray cluster of a head and two workers."""

import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_SLURM_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that goes back into the queue waits until its credentials have expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=100
PartitionName=debug Nodes={host} Default=YES MaxTime=60 State=UP
"""


@contextmanager
def slurm_node() -> Iterator[Path]:
    """Start a Slurm of one node; yields its configuration, for `SLURM_CONF`."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not find_program(name)]
    missing += [] if importlib.util.find_spec("submitit") else ["submitit"]
    if missing:
        pytest.skip(f"no Slurm here: {', '.join(missing)} not installed")
    # Sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, ExitStack() as stack:
        folder, host = Path(name), socket.gethostname().partition(".")[0]
        for each in ("state", "spool"):
            (folder / each).mkdir()
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        conf = folder / "slurm.conf"
        conf.write_text(_SLURM_CONF.format(host=host, ports=free_ports(2), user=getpass.getuser(), folder=folder))
        files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        words = [f"--{option}={folder / file}" for option, file in files.items()]
        _start(stack, folder, [find_program("munged"), "--foreground", "--force", *words])
        wait_for(lambda: (folder / "munge.socket").exists(), "munged has not started")
        _start(stack, folder, [find_program("slurmctld"), "-D", "-f", conf])
        _start(stack, folder, [find_program("slurmd"), "-D", "-f", conf, "-N", host])
        wait_for(lambda: "idle" in _output("sinfo", "-h", "-o", "%T", SLURM_CONF=conf), "Slurm's node is not idle")
        yield conf


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Start a Ray head and two workers of one core each; yields the cluster's address."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed here")
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        common = ["--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]
        start = [sys.executable, "-m", "ray.scripts.scripts", "start"]
        # Workers of tasks have the ports from 10002 on.
        ports = ["--min-worker-port=0", "--max-worker-port=0", *common]
        head = ["--head", f"--port={address.partition(':')[2]}", "--num-cpus=0", "--include-dashboard=false"]
        _start_ray(stack, Path(name), [*start, *head, f"--temp-dir={name}", *ports])
        for _ in range(2):
            _start_ray(stack, Path(name), [*start, f"--address={address}", "--num-cpus=1", *ports])
        yield address


def _start_ray(stack: ExitStack, folder: Path, words: list) -> None:
    """Start a node of Ray, again where the machine is too busy: Ray gives it half a minute."""
    for _ in range(5):
        if _runs(*_start(stack, folder, words)):
            return
    pytest.fail("Ray does not start on this machine")


def _runs(log: Path, process: "subprocess.Popen[bytes]") -> bool:
    wait_for(lambda: "runtime started" in log.read_text() or process.poll() is not None, "Ray has not started")
    return process.poll() is None


def find_program(name: str) -> str | None:
    """The path of a program, also of one that only the administrator has in his search path."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    """Ports that nothing on this machine listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def wait_for(condition: Callable[[], object], message: str, seconds: float = 900) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.05)


def find_process(folder: Path) -> int | None:
    """The process that trains the run in a folder, on whatever node of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "train" in words and str(folder) in words:
            return int(path.parent.name)
    return None


def parent_of(process: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _start(stack: ExitStack, folder: Path, words: list) -> tuple[Path, "subprocess.Popen[bytes]"]:
    """Start a daemon that ends with the stack; returns its log and its process."""
    log = folder / f"daemon{len(list(folder.glob('daemon*')))}.log"
    # Ray makes its workers nice, which starves them on a busy machine.
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONWARNINGS": ""}
    with open(log, "wb") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    stack.callback(_end, process)
    return log, process


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _output(*words: str, **environment: object) -> str:
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.run(words, env=variables, capture_output=True, text=True).stdout
