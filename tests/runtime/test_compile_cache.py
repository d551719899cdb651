"""Compiled programs that are kept: where, how many, and what becomes of those that a crash cut short."""

import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from stepwise_jax.runtime import compile_cache
from stepwise_jax.runtime.compile_cache import VerifiedCache, clean_up

ROOT = Path(__file__).parents[2]


def entry(folder: Path, name: str, size: int, age: float) -> Path:
    """A kept program that was used last `age` seconds ago."""
    path = folder / f"jit_{name}-{'0' * 8}-cache"
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0].removeprefix("jit_") for path in folder.glob("*-cache"))


def test_those_used_longest_ago_go_first(tmp_path):
    for name, age in (("new", 100), ("old", 1000), ("oldest", 5000), ("newest", 70)):
        entry(tmp_path, name, 1000, age)
    clean_up(tmp_path, 3 * 1100)
    assert left(tmp_path) == ["new", "newest", "old"]
    clean_up(tmp_path, 1100)
    assert left(tmp_path) == ["newest"]
    clean_up(tmp_path, 0)
    assert left(tmp_path) == []


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    other = next(each for each in path.parent.glob("*-cache") if each != path)
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


SPOILED = {
    "damaged": damage,
    "cut short": lambda path: os.truncate(path, 3),
    "empty": lambda path: os.truncate(path, 0),
    "swapped": swap,
    "of JAX itself": lambda path: path.write_bytes(zlib.compress(b"a program")),
}


@pytest.mark.parametrize("how", SPOILED)
def test_an_entry_that_is_not_the_one_that_was_written_is_compiled_again(how, tmp_path, caplog):
    cache = VerifiedCache(tmp_path)
    programs = {"jit_step-0": b"the program of a step", "jit_scores-1": b"another program"}
    for key, program in programs.items():
        cache.put(key, program)
    assert {key: cache.get(key) for key in programs} == programs
    SPOILED[how](tmp_path / "jit_step-0-cache")
    assert cache.get("jit_step-0") is None
    assert cache.get("jit_scores-1") in (None, programs["jit_scores-1"])
    (message,) = [record.message for record in caplog.records]
    assert "has entries that are damaged or of another version: such programs are compiled again" in message
    cache.put("jit_step-0", programs["jit_step-0"])
    assert cache.get("jit_step-0") == programs["jit_step-0"]


def test_a_cache_that_cannot_be_read_or_written_is_one_warning(tmp_path, caplog):
    cache = VerifiedCache(tmp_path / "file")
    (tmp_path / "file").touch()
    for key in ("jit_a-0", "jit_b-1"):
        cache.put(key, b"a program")
        assert cache.get(key) is None
    (message,) = [record.message for record in caplog.records]
    assert "cannot be written (Not a directory): programs are compiled again in each run" in message


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


PROGRAMS = """
import logging
import jax
from stepwise_jax.runtime import compile_cache

logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
compile_cache.enable()
compile_cache.enable()
plus, times = jax.jit(lambda x: x + 3), jax.jit(lambda x: x * 3)
print(plus(5), times(5), jax.jit(lambda x: x - 3)(5))
"""


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"])
def test_programs_that_changed_places_are_compiled_again_with_one_line(tmp_path, variable):
    """JAX would execute each of them under the name of another, also in a folder that the user names."""

    def run_programs() -> tuple[str, str]:
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        environment |= {variable: str(tmp_path), "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-c", PROGRAMS]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, done.stderr

    (tmp_path / "jit_of-another-program-cache").write_bytes(b"an entry of another program")
    assert run_programs() == ("8 15 2\n", "")
    assert (tmp_path / "jit_of-another-program-cache").read_bytes() == b"an entry of another program"
    (tmp_path / "jit_of-another-program-cache").unlink()
    entries = sorted(tmp_path.rglob("*-cache"))
    contents = [path.read_bytes() for path in entries]
    assert len(entries) >= 3
    for path, content in zip(entries, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    output, errors = run_programs()
    assert output == "8 15 2\n"
    assert errors == (
        f"warning: the compilation cache {entries[0].parent} has entries that are damaged or of another version: such "
        "programs are compiled again\n"
    )
    assert run_programs() == ("8 15 2\n", "")


def test_entries_that_jax_itself_wrote_in_the_users_folder_are_not_executed(tmp_path):
    """They have no digest, and may have changed places."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    outputs = []
    for program in (PROGRAMS.replace("compile_cache.enable()", ""), PROGRAMS):
        words = [sys.executable, "-c", program]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=True)
        outputs.append((done.stdout, done.stderr))
        theirs = sorted(tmp_path.glob("*-cache"))
        contents = [path.read_bytes() for path in theirs]
        for path, content in zip(theirs, [*contents[1:], contents[0]], strict=True):
            path.write_bytes(content)
    assert len(theirs) >= 3
    assert outputs == [("8 15 2\n", "")] * 2


def test_a_folder_of_the_users_that_cannot_be_written_is_one_warning(tmp_path):
    (tmp_path / "file").touch()
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "file"), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", PROGRAMS]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "8 15 2\n"
    assert done.stderr.count("\n") == 1
    assert "cannot be read (Not a directory): programs are compiled again" in done.stderr
