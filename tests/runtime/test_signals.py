"""Each case is a process of its own: a handler that fails to catch its signal must not end the tests."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ENDING, NOTICES = ["SIGINT", "SIGTERM"], ["SIGHUP", "SIGUSR1"]
SIGNALS = [*ENDING, *NOTICES]
BEGIN = """
    import os, signal, sys, threading, time
    from stepwise_jax.runtime.signals import stop_on_signals

    def send(name):
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.05)
"""


def run(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(BEGIN) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)


def test_two_signals_at_once_are_one():
    body = """
    with stop_on_signals() as stop:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        for each in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), each)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
        time.sleep(0.05)
        print(stop.name)
    """
    done = run(body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SIGINT\n", "")


@pytest.mark.parametrize("name", SIGNALS)
def test_the_first_signal_is_noted_and_work_continues(name):
    body = """
    with stop_on_signals() as stop:
        print(bool(stop), stop.name)
        send(sys.argv[1])
        print(bool(stop), stop.name)
    """
    done = run(body, name)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["False None", f"True {name}"]), done.stderr


@pytest.mark.parametrize("name", ENDING)
@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_signal_of_either_kind_ends_the_process_at_once(first, name):
    body = """
    from stepwise_jax.runtime.signals import exit_on_signals

    exit_on_signals()
    with stop_on_signals() as stop:
        send(sys.argv[1])
        print("noted", stop.name, flush=True)
        send(sys.argv[2])
        print("still here", flush=True)
    """
    done = run(body, first, name)
    assert done.returncode == -getattr(signal, name)
    assert done.stdout.splitlines() == [f"noted {first}"]


@pytest.mark.parametrize("name", NOTICES)
@pytest.mark.parametrize("first", SIGNALS)
def test_a_notice_after_another_signal_changes_nothing(first, name):
    """A terminal that closes sends SIGHUP, its shell once more, and systemd SIGTERM before."""
    body = """
    before = signal.getsignal(getattr(signal, sys.argv[2]))
    with stop_on_signals() as stop:
        send(sys.argv[1])
        send(sys.argv[2])
        print(stop.name)
    print(signal.getsignal(getattr(signal, sys.argv[2])) is before)
    """
    done = run(body, first, name)
    assert (done.returncode, done.stdout.splitlines()) == (0, [first, "True"]), done.stderr


@pytest.mark.parametrize("name", NOTICES)
def test_a_notice_that_is_ignored_stays_ignored(name):
    body = """
    from stepwise_jax.runtime.signals import exit_on_signals

    signal.signal(getattr(signal, sys.argv[1]), signal.SIG_IGN)
    exit_on_signals()
    send(sys.argv[1])
    with stop_on_signals() as stop:
        send(sys.argv[1])
        print(stop.name)
    send(sys.argv[1])
    """
    done = run(body, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def test_under_nohup_a_terminal_that_closes_changes_nothing():
    body = """
    from stepwise_jax.runtime.signals import exit_on_signals

    exit_on_signals()
    with stop_on_signals() as stop:
        send("SIGHUP")
        print(stop.name, flush=True)
        send("SIGTERM")
        print(stop.name)
    """
    words = ["nohup", sys.executable, "-c", textwrap.dedent(BEGIN) + textwrap.dedent(body)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["None", "SIGTERM"]), done.stderr


@pytest.mark.parametrize("first", SIGNALS)
def test_where_python_handles_interrupts_a_second_one_is_a_keyboard_interrupt(first):
    body = """
    # A shell starts a job in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_on_signals() as stop:
        send(sys.argv[1])
        print("noted", stop.name, flush=True)
        try:
            send("SIGINT")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        send("SIGTERM")
        print("still here", flush=True)
    """
    done = run(body, first)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.splitlines() == [f"noted {first}", "interrupted"]


@pytest.mark.parametrize("disturbance", ["nothing", "a signal", "an error"])
def test_the_handlers_from_before_are_there_again_afterwards(disturbance):
    body = """
    def own(number, frame):
        print("own handler:", signal.Signals(number).name)

    signal.signal(signal.SIGTERM, own)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with stop_on_signals():
            if sys.argv[1] == "a signal":
                send("SIGTERM")
            if sys.argv[1] == "an error":
                raise RuntimeError
    except RuntimeError:
        print("the error came through")
    send("SIGTERM")
    print(signal.getsignal(signal.SIGINT) is interrupt)
    """
    messages = ["the error came through"] if disturbance == "an error" else []
    done = run(body, disturbance)
    assert done.stdout.splitlines() == [*messages, "own handler: SIGTERM", "True"], done.stderr


def test_a_process_stops_once_its_parent_is_gone():
    body = """
    from stepwise_jax.runtime.signals import PARENT, stop_with_parent

    def parent_is(number):
        os.environ[PARENT] = number
        stop_with_parent(seconds=0.01)
        time.sleep(0.2)
        print(stop.name, PARENT in os.environ, flush=True)

    with stop_on_signals() as stop:
        stop_with_parent(seconds=0.01)
        parent_is(str(os.getppid()))
        parent_is(str(os.getppid() + 1))
        # A second signal would end the process before it has saved.
        parent_is(str(os.getppid() + 1))
    """
    done = run(body)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["None False", "SIGTERM False", "SIGTERM False"])


def test_outside_the_main_thread_no_handler_is_touched():
    body = """
    def work():
        with stop_on_signals() as stop:
            print(stop.name, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    """
    done = run(body)
    assert done.stdout.splitlines() == ["None True"], done.stderr


# ---- Before a run can save


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGHUP", 75), ("SIGUSR1", 75)])
@pytest.mark.parametrize("place", ["in a callback", "where all is caught", "plainly"])
def test_nothing_swallows_a_signal_before_training(name, status, place):
    """What is raised in a callback is printed and passed over: a KeyboardInterrupt was lost like that."""
    body = """
    import weakref
    from stepwise_jax.runtime.signals import exit_on_signals

    class Thing:
        pass

    exit_on_signals()
    if sys.argv[2] == "in a callback":
        thing = Thing()
        weakref.finalize(thing, send, sys.argv[1])
        del thing
    elif sys.argv[2] == "where all is caught":
        try:
            send(sys.argv[1])
        except BaseException:
            pass
    else:
        send(sys.argv[1])
    print("still here")
    """
    done = run(body, name, place)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr == f"stopped by {name} while no training was running: run the same command to continue\n"


def test_a_run_takes_over_from_what_ends_it_at_once():
    body = """
    from stepwise_jax.runtime.signals import exit_on_signals

    exit_on_signals()
    with stop_on_signals() as stop:
        send("SIGTERM")
        print(stop.name, flush=True)
    send("SIGINT")
    print("still here", flush=True)
    """
    done = run(body)
    assert (done.returncode, done.stdout) == (130, "SIGTERM\n")


def test_the_entry_point_handles_signals_while_its_libraries_load(tmp_path):
    """A library of the test's own in JAX's place sends the signal at the moment that it is imported."""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    words = [sys.executable, "launch.py", "train", "configs/digits.py", "--workdir", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "GLIBC_TUNABLES": ""}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("stopped by SIGINT")
