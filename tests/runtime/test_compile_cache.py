"""Compiled programs that are kept: where, how many, and what becomes of those that a crash cut short."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from stepwise_jax.runtime import compile_cache
from stepwise_jax.runtime.compile_cache import clean_up, is_intact

ROOT = Path(__file__).parents[2]
NOW = 1_700_000_000.0


def entry(folder: Path, name: str, size: int, age: float, *, whole: bool = True) -> Path:
    """A kept program that was used last `age` seconds before `NOW`."""
    packed = zlib.compress(os.urandom(size), 0)
    path = folder / f"jit_{name}-{'0' * 8}-cache"
    path.write_bytes(packed if whole else packed[: size // 2])
    os.utime(path, (NOW - age, NOW - age))
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0].removeprefix("jit_") for path in folder.glob("*-cache"))


def test_those_used_longest_ago_go_first(tmp_path):
    for name, age in (("new", 100), ("old", 1000), ("oldest", 5000), ("newest", 70)):
        entry(tmp_path, name, 1000, age)
    clean_up(tmp_path, 3 * 1100, NOW)
    assert left(tmp_path) == ["new", "newest", "old"]
    clean_up(tmp_path, 1100, NOW)
    assert left(tmp_path) == ["newest"]
    clean_up(tmp_path, 0, NOW)
    assert left(tmp_path) == []


def test_what_was_cut_short_is_taken_away(tmp_path):
    entry(tmp_path, "torn", 1000, 100, whole=False)
    entry(tmp_path, "whole", 1000, 100)
    # Another process may be writing this one now.
    growing = entry(tmp_path, "growing", 1000, 1, whole=False)
    clean_up(tmp_path, 10**6, NOW)
    assert left(tmp_path) == ["growing", "whole"]
    clean_up(tmp_path, 10**6, NOW + 120)
    assert not growing.exists()
    assert left(tmp_path) == ["whole"]


def test_an_entry_is_read_once(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(compile_cache, "is_intact", lambda packed: read.append(len(packed)) or True)
    entry(tmp_path, "a", 100, 200)
    clean_up(tmp_path, 10**6, NOW)
    clean_up(tmp_path, 10**6, NOW + 1)
    assert len(read) == 1
    entry(tmp_path, "b", 100, 30)
    clean_up(tmp_path, 10**6, NOW + 100)
    assert len(read) == 2


@pytest.mark.parametrize("cut", [0, 1, 50, 99])
def test_a_part_of_an_entry_is_not_whole(cut):
    packed = zlib.compress(bytes(range(256)) * 4)
    assert is_intact(packed)
    assert not is_intact(packed[: len(packed) * cut // 100])


def test_the_place_is_the_users_and_the_processors(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = compile_cache.cache_folder()
    assert here is not None
    assert here.is_relative_to(tmp_path / "stepwise-jax")
    monkeypatch.setattr(compile_cache, "_processor", lambda: "another")
    assert compile_cache.cache_folder() != here
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert (compile_cache.cache_folder() or here).is_relative_to("/home/somebody/.cache")


def test_without_a_home_folder_there_is_no_cache_and_one_warning(monkeypatch, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    # Without `update`, so that nothing can be enabled.
    config = SimpleNamespace(jax_compilation_cache_dir=None, jax_enable_compilation_cache=True)
    monkeypatch.setattr(compile_cache, "jax", SimpleNamespace(config=config))
    compile_cache.enable()
    assert [record.message for record in caplog.records] == [
        "the compilation cache is disabled: XDG_CACHE_HOME and the home folder are no absolute paths"
    ]


COUNTING = """
import collections, json, sys
import jax.monitoring
import launch
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event.rpartition("/")[2]]))
status = launch.main(sys.argv[1:])
print(json.dumps(seen))
sys.exit(status)
"""

FIVE_STAGES = {
    "model.width": "4",
    "model.blocks": "1",
    "data.image_size": "8",
    "plan.epochs_per_stage": "1",
    "plan.batch_size": "40",
    "evaluation.batch_size": "120",
}


def run(folder: Path, data_dir: Path, home: Path) -> tuple[dict[str, int], list[str]]:
    """Trains the digits in five stages in a process of its own: JAX's events counted, and what the run told."""
    config, words = str(ROOT / "configs" / "digits.py"), ["--data.data_dir", str(data_dir)]
    words += [word for name, value in FIVE_STAGES.items() for word in (f"--{name}", *value.split())]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, "train", config, "--workdir", str(folder), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return json.loads(done.stdout.splitlines()[-1]), [row["message"] for row in records if row.get("name") == "compile"]


def test_five_stages_compile_each_shape_once_and_a_second_run_compiles_nothing(tmp_path, data_dir):
    first, messages = run(tmp_path / "first", data_dir, tmp_path / "home")
    shapes = [text.partition(" in ")[0] for text in messages]
    assert sorted(shapes) == sorted(
        ["compiled evaluate for 120 examples", "compiled predict for 120 examples"]
        + [f"compiled train for 1 x {size} examples" for size in (40, 80, 120, 160)]
    )
    assert first["cache_misses"] >= len(shapes)
    assert list((tmp_path / "home").rglob("*-cache")), "nothing was kept in the user's folder"
    second, messages = run(tmp_path / "second", data_dir, tmp_path / "home")
    assert len(messages) == len(shapes)
    assert second.get("cache_misses", 0) == 0
    assert second["cache_hits"] == second["compile_requests_use_cache"] >= len(shapes)
