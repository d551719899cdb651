"""A process that starts itself anew, once, with the settings that it was to have."""

import json
import os
import subprocess
import sys

import pytest

from stepwise_jax import kept_memory

PROGRAM = """
import json, os, sys
from stepwise_jax.kept_memory import ENVIRONMENT, start_anew_with_kept_memory
print("start", flush=True)
start_anew_with_kept_memory()
print(json.dumps([{name: os.environ.get(name) for name in ENVIRONMENT}, sys.argv[1:]]), flush=True)
"""

STEPS = """
import resource
import jax, jax.numpy as jnp

step = jax.jit(lambda u: (u @ u.T) @ u)  # the first product is 64 MB of the step's own
x = jnp.ones((4096, 8))
for _ in range(3):
    step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(program: str, environment: dict[str, str]) -> list[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in kept_memory.ENVIRONMENT}
    command = [sys.executable, "-c", program, "a b", "--c"]
    done = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux's C library")
def test_it_starts_anew_once_with_the_settings_and_the_same_words():
    *starts, told = run(PROGRAM, {})
    assert starts == ["start", "start"]
    assert json.loads(told) == [kept_memory.ENVIRONMENT, ["a b", "--c"]]


def test_it_goes_on_where_the_user_has_settings():
    own = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
    *starts, told = run(PROGRAM, own)
    assert starts == ["start"]
    assert json.loads(told)[0] == {**dict.fromkeys(kept_memory.ENVIRONMENT), **own}


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux's C library")
def test_a_users_word_on_dispatch_stays():
    *_, told = run(PROGRAM, {"JAX_CPU_ENABLE_ASYNC_DISPATCH": "1"})
    assert json.loads(told)[0] == {**kept_memory.ENVIRONMENT, "JAX_CPU_ENABLE_ASYNC_DISPATCH": "1"}


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux's C library")
def test_steps_that_follow_wait_for_no_pages():
    plain, kept = (int(run(STEPS, environment)[0]) for environment in ({}, kept_memory.ENVIRONMENT))
    if plain < 10_000:
        pytest.skip("this system gives huge pages to all, and so little to save")
    assert kept < plain / 10
