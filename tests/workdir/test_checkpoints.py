"""What is restored from a checkpoint is what was saved, and the newest checkpoints are kept."""

import errno
import shutil
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from stepwise_jax.errors import InputError, SaveError
from stepwise_jax.functional.state import TrainState
from stepwise_jax.workdir.checkpoints import Checkpoints
from tests.workdir.saved_states import BEFORE, NEWEST, POSITION, a_state, bits, committed, save_two


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good checkpoints, for tests to copy."""
    return save_two(tmp_path_factory.mktemp("saved") / "checkpoints")


def test_a_folder_without_checkpoints_restores_nothing(tmp_path):
    with Checkpoints(tmp_path / "new", keep=2) as checkpoints:
        assert checkpoints.restore(a_state(0), pytest.fail) is None


def test_state_and_place_come_back_exactly_from_the_newest(saved):
    like = a_state(0)
    with Checkpoints(saved, keep=3) as checkpoints:
        restored = checkpoints.restore(like, pytest.fail)
    assert restored is not None
    state, position = restored
    assert isinstance(state, TrainState)
    assert bits(state) == bits(a_state(NEWEST))
    assert position == POSITION | {"stage": NEWEST}
    assert jax.tree.structure(state) == jax.tree.structure(like)
    assert all(a.sharding == b.sharding for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True))
    assert not any(leaf.aval.weak_type for leaf in jax.tree.leaves(state)), "the next step would compile again"


def test_numbers_that_are_not_finite_and_signed_zeros_survive(tmp_path):
    state = a_state(1)
    odd = jnp.asarray([[-0.0, np.nan, np.inf], [-np.inf, 1e-45, 3.4e38]], jnp.float32)
    state = state._replace(params={"odd": odd, "half": jnp.asarray([1.5, np.nan], jnp.bfloat16)})
    with Checkpoints(tmp_path / "odd", keep=2) as checkpoints:
        checkpoints.save(state, POSITION)
        checkpoints.wait()
        restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, state), pytest.fail)
    assert restored is not None
    assert bits(restored[0]) == bits(state)


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path / "few", keep=2) as checkpoints:
        for step in (1, 2, 3, 5, 8):
            checkpoints.save(a_state(step), POSITION)
    assert committed(tmp_path / "few") == [5, 8]
    with Checkpoints(tmp_path / "few", keep=2) as checkpoints:
        checkpoints.save(a_state(13), POSITION)
    assert committed(tmp_path / "few") == [8, 13]


@pytest.mark.parametrize(
    "trigger", [Checkpoints.start_writing, lambda each: each.should_save(1e6), Checkpoints.wait, lambda each: None]
)
def test_what_is_saved_later_is_as_it_was_when_that_was_asked(tmp_path, trigger):
    expected = bits(a_state(3))
    with Checkpoints(tmp_path / "later", keep=2) as checkpoints:
        state = a_state(3)
        checkpoints.save(state, POSITION, later=True)
        assert checkpoints.steps() == [3]
        assert committed(tmp_path / "later") == []
        jax.block_until_ready(jax.jit(lambda state: jax.tree.map(jnp.zeros_like, state), donate_argnums=0)(state))
        trigger(checkpoints)
    assert committed(tmp_path / "later") == [3]
    with Checkpoints(tmp_path / "later", keep=2) as checkpoints:
        restored = checkpoints.restore(a_state(0), pytest.fail)
    assert restored is not None
    assert (bits(restored[0]), restored[1]) == (expected, POSITION)


def test_what_is_saved_later_and_cannot_be_written_is_reported_when_writing_starts(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with Checkpoints(tmp_path / "later", keep=2) as checkpoints:
        checkpoints.save(a_state(3), POSITION, later=True)
        monkeypatch.setattr(checkpoints._manager, "save", refuse)
        with pytest.raises(SaveError, match="the disk is full"):
            checkpoints.should_save(0)
        # Raised once; the next save can succeed.
        assert checkpoints.steps() == []
        checkpoints.save(a_state(4), POSITION)
    assert committed(tmp_path / "later") == [4]


@pytest.mark.parametrize(("times", "saved"), [(4, [3]), (5, [])])
def test_a_save_that_is_interrupted_is_tried_again_at_once(times, saved, tmp_path, monkeypatch):
    save, interruptions = ocp.CheckpointManager.save, list(range(times))

    def interrupt(manager: ocp.CheckpointManager, *arguments: Any, **options: Any) -> Any:
        if interruptions:
            interruptions.pop()
            # As TensorStore words it, which does not repeat a system call that a signal or a file system interrupts.
            raise ValueError("Failed to write to file: Interrupted system call [os_error_code='4']")
        return save(manager, *arguments, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "save", interrupt)
    state = a_state(3)
    with (
        Checkpoints(tmp_path / "saved", keep=2) as checkpoints,
        nullcontext() if saved else pytest.raises(SaveError, match="Interrupted system call"),
    ):
        checkpoints.save(state, POSITION)
    assert committed(tmp_path / "saved") == saved
    assert interruptions == []


def test_the_one_that_is_held_stays_beside_the_newest_until_another_is(tmp_path):
    with Checkpoints(tmp_path / "held", keep=2) as checkpoints:
        for step in (1, 2, 3, 5, 8):
            checkpoints.save(a_state(step), POSITION)
            if step == 2:
                checkpoints.pin(2)
        checkpoints.wait()
        assert committed(tmp_path / "held") == [2, 5, 8]
        checkpoints.pin(5)
        for step in (13, 21):
            checkpoints.save(a_state(step), POSITION)
        checkpoints.wait()
        assert committed(tmp_path / "held") == [5, 13, 21]
        checkpoints.delete_after(5)
        assert committed(tmp_path / "held") == [5]


def test_a_place_that_is_saved_already_is_left_as_it_is(tmp_path):
    with Checkpoints(tmp_path / "once", keep=2) as checkpoints:
        checkpoints.save(a_state(4), POSITION)
        checkpoints.wait()
        checkpoints.save(a_state(4), POSITION | {"stage": 99})
        checkpoints.wait()
        restored = checkpoints.restore(a_state(0), pytest.fail)
    assert restored is not None
    assert restored[1] == POSITION


def test_a_state_whose_memory_is_taken_over_while_it_is_saved_is_saved_whole(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 1, state), donate_argnums=0)
    states = [a_state(number, rows=50_000) for number in (1, 2)]
    expected = [bits(state) for state in states]
    folder = tmp_path / "donated"
    with Checkpoints(folder, keep=2) as checkpoints:
        for state, before in zip(states, expected, strict=True):
            checkpoints.save(state, POSITION)
            overwritten = step(state)
            taken = state.params["block"]["kernel"].is_deleted()
            # From JAX 0.11 on, an array that a save still reads keeps its memory: the step gets other memory.
            assert taken or (not version("jax").startswith("0.10.") and bits(state) == before)
            jax.block_until_ready(overwritten)
    for number in (2, 1):
        with Checkpoints(folder, keep=2) as checkpoints:
            restored = checkpoints.restore(a_state(0, rows=50_000), pytest.fail)
        assert restored is not None
        assert bits(restored[0]) == expected[number - 1]
        shutil.rmtree(folder / str(number))


@pytest.mark.parametrize("name", ["lr[0.1]", "a*", "a?b", "**", "a{1,2}", "50% #1", "[!x]/b"])
def test_a_folder_may_have_any_name(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (BEFORE, NEWEST):
            checkpoints.save(a_state(step), POSITION | {"stage": step})
    with Checkpoints(folder, keep=2) as checkpoints:
        restored = checkpoints.restore(a_state(0), pytest.fail)
    assert restored is not None
    assert bits(restored[0]) == bits(a_state(NEWEST))


def other_kinds() -> dict[str, TrainState]:
    state = a_state(0)
    return {
        "dtype": state._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.params)),
        "shape": a_state(0, rows=501),
        "fewer leaves": state._replace(params={"scale": state.params["scale"]}),
    }


@pytest.mark.parametrize("kind", ["dtype", "shape", "fewer leaves"])
def test_a_state_of_another_kind_is_never_made_to_fit_in_silence(saved, tmp_path, kind):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    with Checkpoints(folder, keep=3) as checkpoints, pytest.raises(InputError):
        checkpoints.restore(other_kinds()[kind], lambda _: None)
    assert committed(folder) == [BEFORE, NEWEST]
