"""Checkpoints that cannot be read at the moment are not damaged, and stay as they are."""

import contextlib
import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from stepwise_jax.errors import ReadError
from stepwise_jax.workdir import reading
from stepwise_jax.workdir.checkpoints import Checkpoints
from tests.workdir.saved_states import BEFORE, NEWEST, POSITION, a_state, bits, committed, files_of, save_two


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good checkpoints, for tests to copy."""
    return save_two(tmp_path_factory.mktemp("saved") / "checkpoints")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(reading, "RETRY_PAUSES", (0, 0))


def test_a_file_that_cannot_be_read_is_no_damage(saved, tmp_path, impatient):
    """A link to itself cannot be opened, by root neither, and Orbax takes some such files for missing ones."""
    refused = 0
    for number, path in enumerate(files_of(saved, NEWEST)):
        folder, messages = tmp_path / str(number), []
        shutil.copytree(saved, folder)
        (folder / path).unlink()
        (folder / path).symlink_to(folder / path)
        with Checkpoints(folder, keep=3) as checkpoints:
            restored = None
            with contextlib.suppress(ReadError):
                restored = checkpoints.restore(a_state(0), messages.append)
            # Some files repeat what others say, or are not needed.
            assert restored is None or bits(restored[0]) == bits(a_state(NEWEST)), path
            refused += restored is None
        assert messages == [], path
        assert committed(folder) == [BEFORE, NEWEST], path
    assert refused > 4


@pytest.mark.parametrize(
    "passing",
    [
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.EMFILE, "Too many open files"),
        ValueError("UNKNOWN: Error reading local file [source locations='x'] [os_error_code='5']"),
        MemoryError(),
        KeyError("what Orbax makes of a file that it could not open"),
    ],
    ids=["stale", "open files", "tensorstore", "memory", "disguised"],
)
def test_an_error_that_passes_is_not_seen(saved, monkeypatch, impatient, passing):
    errors = [passing]
    restore = Checkpoints._restore

    def fail_once(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return restore(*arguments)

    monkeypatch.setattr(Checkpoints, "_restore", fail_once)
    with Checkpoints(saved, keep=3) as checkpoints:
        restored = checkpoints.restore(a_state(0), pytest.fail)
    assert restored is not None
    assert restored[1] == POSITION | {"stage": NEWEST}
    assert committed(saved) == [BEFORE, NEWEST]


def test_an_error_that_stays_is_reported_with_its_cause(saved, monkeypatch, impatient):
    def fail(*_: object) -> None:
        raise RuntimeError("the read failed") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Checkpoints, "_restore", fail)
    with (
        Checkpoints(saved, keep=3) as checkpoints,
        pytest.raises(ReadError, match=r"7 cannot be read \(Input/output error\): nothing is changed") as caught,
    ):
        checkpoints.restore(a_state(0), pytest.fail)
    assert caught.value.status == 1
    assert committed(saved) == [BEFORE, NEWEST]
