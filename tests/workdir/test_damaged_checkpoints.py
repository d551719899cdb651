"""A damaged checkpoint is noticed, set aside, and replaced by the one before it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.checkpoints import Checkpoints
from tests.workdir.saved_states import BEFORE, NEWEST, POSITION, a_state, bits, committed, files_of, save_two


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good checkpoints, for tests to copy."""
    return save_two(tmp_path_factory.mktemp("saved") / "checkpoints")


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


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_of_a_checkpoint_is_survived_or_reported(saved, tmp_path, damage):
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


def test_a_run_keeps_saving_after_it_fell_back(saved, tmp_path):
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
