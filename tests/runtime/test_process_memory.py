"""A process that starts itself anew, once, with the settings that it was to have."""

import json
import os
import subprocess
import sys

import pytest

from stepwise_jax.runtime import process

PROGRAM = """
import json, os, sys
from stepwise_jax.runtime.process import MALLOC_SETTINGS, restart_with_malloc_settings
print("start", flush=True)
restart_with_malloc_settings()
print(json.dumps([{name: os.environ.get(name) for name in MALLOC_SETTINGS}, sys.argv[1:]]), flush=True)
"""

STEPS = """
import resource, statistics, sys
from stepwise_jax.runtime.process import compute_in_main_thread
if sys.argv[1] == "main":
    compute_in_main_thread()
import jax, jax.numpy as jnp

step = jax.jit(lambda u: (u @ u.T) @ u)  # the first product is 151 MB of the step's own
x = jnp.ones((6144, 8))
at_once, faults = [], []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    y = step(x)
    at_once.append(y.is_ready())
    y.block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# Not the first ones: a step's memory may be given back a moment after the next one has taken its own.
print(statistics.median_low(faults), *map(int, at_once))
"""


def run(program: str, environment: dict[str, str], *words: str) -> list[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in process.MALLOC_SETTINGS}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux's C library")
def test_it_restarts_once_with_the_settings_and_the_same_arguments():
    *starts, messages = run(PROGRAM, {}, "a b", "--c")
    assert starts == ["start", "start"]
    assert json.loads(messages) == [process.MALLOC_SETTINGS, ["a b", "--c"]]


def test_it_does_not_restart_where_the_user_has_settings():
    own = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
    *starts, messages = run(PROGRAM, own)
    assert starts == ["start"]
    assert json.loads(messages)[0] == {**dict.fromkeys(process.MALLOC_SETTINGS), **own}


SIGNALLED = """
import os, signal
from stepwise_jax.runtime.signals import exit_on_signals
from stepwise_jax.runtime.process import restart_with_malloc_settings

anew, execve = "GLIBC_TUNABLES" in os.environ, os.execve

def interrupted(*words):
    os.kill(os.getpid(), signal.SIGTERM)  # as late as can be: what comes while Python starts waits just so
    execve(*words)

os.execve = interrupted
print("anew" if anew else "first", flush=True)
exit_on_signals()
restart_with_malloc_settings()
print("still here")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux's C library")
def test_a_signal_on_the_way_waits_for_the_new_process():
    inherited = {name: value for name, value in os.environ.items() if name not in process.MALLOC_SETTINGS}
    command = [sys.executable, "-c", SIGNALLED]
    done = subprocess.run(command, env=inherited, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (75, "first\nanew\n")
    assert done.stderr.startswith("stopped by SIGTERM")
    assert done.stderr.count("\n") == 1


def test_a_process_that_cannot_be_restarted_continues_as_it_is():
    restart = "from stepwise_jax.runtime.process import restart_with_malloc_settings as restart; restart()"
    body = f"import sys; sys.executable = '/dev/null/python'; {restart}; print('still here')"
    inherited = {name: value for name, value in os.environ.items() if name not in process.MALLOC_SETTINGS}
    done = subprocess.run([sys.executable, "-c", body], env=inherited, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux's C library")
def test_steps_that_follow_wait_for_no_pages():
    elsewhere, here = (run(STEPS, process.MALLOC_SETTINGS, thread) for thread in ("another", "main"))
    faults, *at_once = map(int, here[0].split())
    assert sum(at_once) > len(at_once) / 2, "the result is there when the call returns"
    mapped, *_ = map(int, elsewhere[0].split())
    # A step's 151 MB are 72 huge pages, or 36,864 of 4 kB; what else a process touches now and then is less.
    assert mapped > 60
    assert faults < 20


def test_where_memory_is_not_kept_jax_dispatches_as_it_does():
    (messages,) = run(STEPS, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}, "main")
    assert 0 in map(int, messages.split()[1:])
