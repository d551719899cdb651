import contextlib
import errno
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepwise_jax.errors import InputError, ReadError, SaveError
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.state import TrainState, state_from_variables
from stepwise_jax.runtime import sharding
from stepwise_jax.workdir import checkpoints as checkpoints_module
from stepwise_jax.workdir import reading
from stepwise_jax.workdir.checkpoints import Checkpoints, PositionDocument

POSITION: PositionDocument = {
    "stage": 2,
    "loss_sum": 0.1 + 0.2,
    "best_top1": None,
    "seconds": {"train": 1e-17},
    "updates": 10**12,
}
NEWEST, BEFORE = 7, 3


def a_state(step: int, rows: int = 500) -> TrainState:
    """A state of many kinds of leaves in which every number depends on the step.

    Its kernel is too large for Orbax to keep it among its own, checksummed, tables: as those of real networks are.
    """
    random = np.random.default_rng(step)
    shapes = {"block": {"kernel": (3, rows, 2), "bias": (2,)}, "scale": ()}
    params = jax.tree.map(lambda shape: random.normal(size=shape), shapes, is_leaf=lambda node: isinstance(node, tuple))
    variables = {"params": params, "batch_stats": {"norm": {"mean": random.normal(size=2), "var": random.random(2)}}}
    variables = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), variables)
    state = state_from_variables(variables, make_optimizer(OptimizerConfig()))
    momentum = jax.tree.map(lambda leaf: leaf + step if leaf.dtype == jnp.float32 else leaf, state.opt_state)
    state = state._replace(step=jnp.int32(step), opt_state=momentum)
    return jax.device_put(state, sharding.replicated(sharding.make_mesh()))


def bits(state: TrainState) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Every leaf's path, dtype, shape and bytes."""
    leaves = jax.tree.leaves_with_path(jax.device_get(state))
    arrays = [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]
    return [(name, str(leaf.dtype), leaf.shape, leaf.tobytes()) for name, leaf in arrays]


def committed(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good checkpoints, for tests to copy."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (BEFORE, NEWEST):
            checkpoints.save(a_state(step), POSITION | {"stage": step})
    return folder


# ---- What is restored is what was saved


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


def test_what_is_saved_later_and_cannot_be_written_is_told_when_it_is_begun(tmp_path, monkeypatch):
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


# ---- Damage


def flip(position: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(position * (len(content) - 1))] ^= 0x10
        path.write_bytes(content)

    return damage


def cut(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a byte flipped at the start": flip(0),
    "a byte flipped in the middle": flip(0.5),
    "a byte flipped near the end": flip(0.9),
    "a byte flipped at the end": flip(1),
    "cut in half": cut(0.5),
    "emptied": cut(0),
    "missing": Path.unlink,
}


def files_of(folder: Path, step: int) -> list[Path]:
    return sorted(path.relative_to(folder) for path in (folder / str(step)).rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_of_a_checkpoint_is_survived_or_told(saved, tmp_path, damage):
    fallbacks = 0
    for number, path in enumerate(files_of(saved, NEWEST)):
        folder, messages = tmp_path / str(number), []
        shutil.copytree(saved, folder)
        DAMAGES[damage](folder / path)
        with Checkpoints(folder, keep=3) as checkpoints:
            restored = checkpoints.restore(a_state(0), messages.append)
        assert restored is not None, path
        used = BEFORE if messages else NEWEST
        assert bits(restored[0]) == bits(a_state(used)), path
        assert restored[1] == POSITION | {"stage": used}, path
        if messages:
            assert len(messages) == 1
            assert f"checkpoint {NEWEST} is damaged" in messages[0]
            assert committed(folder) == [BEFORE], f"the damaged checkpoint is still there ({path})"
            assert f"set aside as damaged-{NEWEST}" in messages[0]
            assert (folder / f"damaged-{NEWEST}").is_dir()
            fallbacks += 1
    assert fallbacks, "no damage was noticed at all"


def spoil(folder: Path, step: int) -> None:
    """Damage a checkpoint beyond use: half of every file of its state is cut off."""
    for path in (folder / str(step) / "state").rglob("*"):
        if path.is_file():
            cut(0.5)(path)


def test_a_run_goes_on_saving_after_it_fell_back(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    spoil(folder, NEWEST)
    with Checkpoints(folder, keep=3) as checkpoints:
        checkpoints.restore(a_state(0), lambda _: None)
        checkpoints.save(a_state(NEWEST), POSITION)
        checkpoints.wait()
        restored = checkpoints.restore(a_state(0), pytest.fail)
    assert restored is not None
    assert bits(restored[0]) == bits(a_state(NEWEST))


def test_a_second_damaged_checkpoint_of_a_step_gets_a_name_of_its_own(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for _ in range(2):
        spoil(folder, NEWEST)
        with Checkpoints(folder, keep=3) as checkpoints:
            checkpoints.restore(a_state(0), lambda _: None)
            checkpoints.save(a_state(NEWEST), POSITION)
    assert sorted(path.name for path in folder.glob("damaged-*")) == [f"damaged-{NEWEST}", f"damaged-{NEWEST}-2"]
    assert committed(folder) == [BEFORE, NEWEST]


def tree(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in found.items()}


def test_a_reader_changes_nothing_in_the_folder(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    spoil(folder, NEWEST)
    (folder / "9.orbax-checkpoint-tmp").mkdir()
    before = tree(folder)
    with Checkpoints(folder, keep=3, read_only=True) as checkpoints:
        restored = checkpoints.restore(a_state(0), lambda _: None)
        assert checkpoints.damaged == (NEWEST,)
    assert restored is not None
    assert restored[1] == POSITION | {"stage": BEFORE}
    assert tree(folder) == before


# ---- Errors of reading: files that cannot be read at the moment are not damaged


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


def test_an_error_that_stays_is_told_with_its_cause(saved, monkeypatch, impatient):
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


# ---- Names of folders


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


def test_nothing_whole_is_an_error_and_nothing_is_deleted(saved, tmp_path):
    folder, messages = tmp_path / "checkpoints", []
    shutil.copytree(saved, folder)
    spoil(folder, NEWEST)
    spoil(folder, BEFORE)
    with (
        Checkpoints(folder, keep=3) as checkpoints,
        pytest.raises(InputError, match="none of the 2 checkpoints is intact"),
    ):
        checkpoints.restore(a_state(0), messages.append)
    assert [message.split(" (")[0] for message in messages] == [
        f"checkpoint {step} is damaged" for step in (NEWEST, BEFORE)
    ]
    assert committed(folder) == [BEFORE, NEWEST]


def test_the_state_of_one_checkpoint_with_the_place_of_another_is_no_checkpoint(saved, tmp_path):
    folder, messages = tmp_path / "checkpoints", []
    shutil.copytree(saved, folder)
    shutil.rmtree(folder / str(NEWEST) / "run")
    shutil.copytree(folder / str(BEFORE) / "run", folder / str(NEWEST) / "run")
    with Checkpoints(folder, keep=3) as checkpoints:
        restored = checkpoints.restore(a_state(0), messages.append)
    assert restored is not None
    assert restored[1] == POSITION | {"stage": BEFORE}
    assert bits(restored[0]) == bits(a_state(BEFORE))
    assert len(messages) == 1


def test_a_digit_of_the_place_that_changed_is_noticed(saved, tmp_path):
    folder, messages = tmp_path / "checkpoints", []
    shutil.copytree(saved, folder)
    document = folder / str(NEWEST) / "run" / "metadata"
    text = document.read_text()
    assert f'"stage": {NEWEST}' in text
    document.write_text(text.replace(f'"stage": {NEWEST}', f'"stage": {NEWEST + 1}'))
    with Checkpoints(folder, keep=3) as checkpoints:
        restored = checkpoints.restore(a_state(0), messages.append)
    assert restored is not None
    assert restored[1] == POSITION | {"stage": BEFORE}
    assert f"checkpoint {NEWEST} is damaged" in messages[0]


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


# ---- When to save


def test_a_save_is_due_so_many_seconds_after_the_last(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(checkpoints_module, "time", SimpleNamespace(monotonic=lambda: now))
    with Checkpoints(tmp_path / "due", keep=2) as checkpoints:
        assert not checkpoints.should_save(10)
        now = 109.0
        assert not checkpoints.should_save(10)
        now = 110.0
        assert checkpoints.should_save(10)
        checkpoints.save(a_state(1), POSITION)
        checkpoints.wait()
        assert not checkpoints.should_save(10)
        now = 120.0
        assert checkpoints.should_save(10)


def test_no_save_is_due_while_one_is_being_written(tmp_path):
    with Checkpoints(tmp_path / "due", keep=2) as checkpoints:
        checkpoints.save(a_state(1, rows=200_000), POSITION)
        deadline = time.monotonic() + 60
        while not checkpoints.should_save(0):
            assert time.monotonic() < deadline
        assert committed(tmp_path / "due") == [1], "the previous save was still in progress"


def test_failed_saves_are_due_again_after_pauses_that_double_until_one_succeeds(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(checkpoints_module, "time", SimpleNamespace(monotonic=lambda: now))
    with Checkpoints(tmp_path / "due", keep=2) as checkpoints:
        for pause in (1, 2, 4, 8, 16, 32, 60, 60):
            checkpoints.postpone()
            now += pause - 0.5
            assert not checkpoints.should_save(1e-9)
            now += 0.5
            assert checkpoints.should_save(1e6)
        checkpoints.save(a_state(1), POSITION)
        checkpoints.wait()
        now += 60
        assert not checkpoints.should_save(100)
        now += 40
        assert checkpoints.should_save(100)
