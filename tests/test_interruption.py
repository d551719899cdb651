"""Each case is a process of its own: a handler that fails to catch its signal must not end the tests."""

import signal
import subprocess
import sys
import textwrap

import pytest

SIGNALS = ["SIGINT", "SIGTERM"]
BEGIN = """
    import os, signal, sys, threading, time
    from stepwise_jax.interruption import stop_on_signals

    def send(name):
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.05)
"""


def run(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(BEGIN) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", SIGNALS)
def test_the_first_signal_is_noted_and_work_goes_on(name):
    body = """
    with stop_on_signals() as stop:
        print(bool(stop), stop.name)
        send(sys.argv[1])
        print(bool(stop), stop.name)
    """
    done = run(body, name)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["False None", f"True {name}"]), done.stderr


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_signal_of_either_kind_ends_the_process_at_once(first, name):
    body = """
    with stop_on_signals() as stop:
        send(sys.argv[1])
        print("noted", stop.name, flush=True)
        send(sys.argv[2])
        print("still here", flush=True)
    """
    done = run(body, first, name)
    assert done.returncode == -getattr(signal, name)
    assert done.stdout.splitlines() == [f"noted {first}"]


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
    told = ["the error came through"] if disturbance == "an error" else []
    done = run(body, disturbance)
    assert done.stdout.splitlines() == [*told, "own handler: SIGTERM", "True"], done.stderr


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
