"""Standard streams that are closed, full or gone, in processes of their own."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stepwise_jax.runtime.streams import TolerantStream, tolerate_errors


def run(body: str, redirections: str = "", *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = "from stepwise_jax.runtime.streams import *\nimport os, sys\n" + textwrap.dedent(body)
    words = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", script, *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "<&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(closed: str, tmp_path: Path):
    body = """
    tolerate_lost_streams()
    with open(sys.argv[1], "w") as file:
        print("text")
        print("text", file=sys.stderr)
        os.write(1, b"bytes")
        os.write(2, b"bytes")
        file.write(f"{file.fileno() > 2} {all(os.get_inheritable(each) for each in range(3))}")
    raise_lost_output()
    """
    done = run(body, closed, str(tmp_path / "checkpoint"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoint").read_text() == "True True"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_disk_ends_nothing(stream: str):
    body = """
    tolerate_lost_streams()
    for _ in range(10_000):
        print("a line of a log", file=getattr(sys, sys.argv[1]), flush=True)
    (sys.stderr if sys.argv[1] == "stdout" else sys.stdout).write("still here")
    """
    done = run(body, ">/dev/full" if stream == "stdout" else "2>/dev/full", stream)
    assert (done.returncode, done.stdout + done.stderr) == (0, "still here")


def test_the_first_error_of_stdout_is_raised_once_at_the_end():
    body = """
    tolerate_lost_streams()
    print("nobody gets this")
    try:
        raise_lost_output()
    except OSError as error:
        print(error.strerror, file=sys.stderr)
    """
    done = run(body, ">/dev/full")
    assert (done.returncode, done.stderr) == (0, "No space left on device\n")


def test_a_stream_that_works_again_is_used_again():
    class Full(io.StringIO):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Full()
    tolerant = tolerate_errors(stream)
    assert tolerant.write("lost") == 4
    stream.full = False
    tolerant.writelines(["kept", "\n"])
    assert stream.getvalue() == "kept\n"
    assert isinstance(tolerant, TolerantStream)
    assert tolerant.error is not None
    assert tolerate_errors(tolerant) is tolerant
    assert tolerant.isatty() is False
