"""Seeded damage to the files of a run, read by `report`, `evaluate` and `predict`: a right result, or one sentence.

`STEPWISE_FUZZ_CASES=500` makes more than the few cases of the suite.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import launch
from stepwise_jax.workdir import reading

DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.py")
CASES = int(os.environ.get("STEPWISE_FUZZ_CASES", "20"))
COMMANDS = ("evaluate", "predict", "evaluate", "predict", "report")

# A digit that changed in these documents leaves a valid document, which says something else.
UNCHECKED = {"config.json", "preprocessing.json"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir) -> Path:
    """A run of two short stages, with a checkpoint at the end of each, and an image to predict."""
    root = tmp_path_factory.mktemp("fuzz")
    words = ["--data.data_dir", str(data_dir), "--data.image_size", "8", "--model.width", "4", "--model.blocks", "1"]
    words += ["--plan.fractions", "0.5", "1", "--plan.batch_multipliers", "1", "1", "--plan.batch_size", "64"]
    words += ["--plan.epochs_per_stage", "1", "--plan.decay_every", "1"]
    assert launch.main(["train", DIGITS, "--workdir", str(root / "run"), *words]) == 0
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(root / "image.png")
    return root


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(reading, "RETRY_PAUSES", (0,))


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size + 1)])


def remove(path: Path, _: random.Random) -> None:
    path.unlink()


def scramble(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.randrange(1, 2000)))


def make_folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def make_loop(path: Path, _: random.Random) -> None:
    path.unlink()
    path.symlink_to(path)


def swap(path: Path, chance: random.Random) -> None:
    root = next(parent for parent in path.parents if parent.name == "run")
    other = chance.choice(sorted(each for each in root.rglob("*") if each.is_file()))
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *(flip, flip, flip, cut, cut),
    *(remove, scramble, make_folder, make_loop, swap, swap),
)


def words_of(command: str, root: Path, out: Path) -> list[str]:
    extra = {"report": ["--out", str(out)], "evaluate": ["--json"], "predict": [str(root / "image.png"), "--json"]}
    return [command, str(out.parent / "run"), *extra[command]]


def read(command: str, root: Path, out: Path, capsys) -> tuple[int, str, str]:
    """The command's exit status, output and messages for the run beside the folder `out`."""
    capsys.readouterr()
    status = launch.main(words_of(command, root, out))
    return status, *capsys.readouterr()


@pytest.fixture(scope="module")
def whole() -> dict[str, str]:
    """The output of each command for the whole run, filled in by the first test that needs it."""
    return {}


@pytest.mark.timeout(120, func_only=True)
@pytest.mark.parametrize("seed", range(CASES))
def test_damage_gives_a_right_result_or_one_sentence(finished, whole, tmp_path, capsys, seed):
    chance, command = random.Random(seed), COMMANDS[seed % len(COMMANDS)]
    shutil.copytree(finished / "run", tmp_path / "run")
    if command not in whole:
        status, whole[command], _ = read(command, finished, tmp_path / "out", capsys)
        assert status == 0
    files = sorted(path for path in (tmp_path / "run").rglob("*") if path.is_file())
    path, damage = chance.choice(files), chance.choice(DAMAGES)
    before = {each: each.read_bytes() for each in files}
    damage(path, chance)
    status, out, err = read(command, finished, tmp_path / "out", capsys)
    what = f"{damage.__name__} {path.relative_to(tmp_path)}, {command}: {status} {out} {err}"
    assert status in (0, 1, 2), what
    assert "Traceback" not in err, what
    if status:
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, what
        assert len(lines[0]) < 1000, what
        return
    changed = {each.name for each, content in before.items() if not each.is_file() or each.read_bytes() != content}
    if command == "report" or changed & UNCHECKED or out == whole[command]:
        return
    if command == "evaluate":
        scores = json.loads(out)
        assert scores["updates"] < scores["planned_updates"], what
        assert scores["damaged_checkpoints"], what
    else:
        assert "is damaged" in err, what
