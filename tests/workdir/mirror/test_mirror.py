"""A run's mirror always holds a run to resume from, and a lost folder comes back from it, to the bit."""

import json
import shutil
import time
from pathlib import Path

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.files import complete_steps
from stepwise_jax.workdir.mirror import Mirror, open_store, restore
from stepwise_jax.workdir.records import EndRecord, EventRecord
from tests.cli.command_line import fails
from tests.training.test_resume import command, finish, strike
from tests.workdir.mirror.s3_server import s3 as s3


def make_run(folder: Path, steps: tuple[int, ...], records: str) -> Path:
    for step in steps:
        (folder / "checkpoints" / str(step) / "state").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / str(step) / "state" / "data").write_text(f"weights {step}")
    (folder / "config.json").write_text("{}")
    (folder / "records.jsonl").write_text(records)
    (folder / "lock").write_text("")
    return folder


def listing(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def wait_for(thread) -> None:
    if thread is not None:
        thread.join()


def test_what_comes_back_is_what_was_there_without_locks_and_unfinished_checkpoints(tmp_path):
    run, store = make_run(tmp_path / "run", (10, 20), "one\n"), open_store(f"file://{tmp_path}/mirror")
    unfinished = run / "checkpoints" / "30.orbax-checkpoint-tmp-1"
    unfinished.mkdir()
    (unfinished / "data").write_text("half")
    Mirror(run, store)(EndRecord())
    assert restore(tmp_path / "back", store)
    kept = {name: text for name, text in listing(run).items() if name != "lock" and "tmp" not in name}
    assert listing(tmp_path / "back") == kept


def test_a_new_checkpoint_is_copied_while_training_goes_on_and_an_old_one_removed(tmp_path):
    run, store = make_run(tmp_path / "run", (10,), "one\n"), open_store(f"file://{tmp_path}/mirror")
    mirror = Mirror(run, store)
    mirror(EventRecord("start", "starting"))
    wait_for(mirror._thread)
    assert complete_steps(tmp_path / "mirror") == {"10"}
    shutil.rmtree(run / "checkpoints" / "10")
    make_run(run, (20,), "one\ntwo\n")
    mirror._looked_at = 0.0
    mirror(EventRecord("start", "starting"))
    wait_for(mirror._thread)
    assert "checkpoints/10/state/data" not in listing(tmp_path / "mirror")
    assert restore(tmp_path / "back", store)
    assert listing(tmp_path / "back")["records.jsonl"] == "one\ntwo\n"


def test_a_copy_that_breaks_off_leaves_the_run_of_the_copy_before(tmp_path, monkeypatch):
    run, store = make_run(tmp_path / "run", (10,), "one\n"), open_store(f"file://{tmp_path}/mirror")
    Mirror(run, store)(EndRecord())
    make_run(run, (20,), "one\ntwo\n")
    upload, monkeypatched = store.upload, []

    def break_off(folder: Path, name: str) -> None:
        if name.startswith("checkpoints/20"):
            monkeypatched.append(name)
            raise OSError("the connection is gone")
        upload(folder, name)

    monkeypatch.setattr(store, "upload", break_off)
    monkeypatch.setattr("stepwise_jax.workdir.mirror.copying._PAUSE_SECONDS", 0)
    Mirror(run, store)(EndRecord())
    assert len(monkeypatched) == 3
    assert restore(tmp_path / "back", store)
    assert complete_steps(tmp_path / "back") == {"10"}


def test_a_folder_that_holds_anything_is_not_touched(tmp_path):
    run, store = make_run(tmp_path / "run", (10,), "one\n"), open_store(f"file://{tmp_path}/mirror")
    Mirror(run, store)(EndRecord())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    assert not restore(tmp_path / "other", store)
    assert listing(tmp_path / "other") == {"letter.txt": "dear"}
    assert not restore(tmp_path / "new", open_store(f"file://{tmp_path}/nothing"))
    assert not (tmp_path / "new").exists()


def test_a_mirror_that_another_process_took_over_is_left_alone(tmp_path, caplog):
    run, store = make_run(tmp_path / "run", (10,), "one\n"), open_store(f"file://{tmp_path}/mirror")
    first, second = Mirror(run, store), Mirror(make_run(tmp_path / "second", (30,), "two\n"), store)
    second(EndRecord())
    first(EndRecord())
    assert "was taken over by" in caplog.text
    assert complete_steps(tmp_path / "mirror") == {"30"}


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out"])
def test_a_manifest_does_not_lead_out_of_the_folder(tmp_path, name):
    store = open_store(f"file://{tmp_path}/mirror")
    store.write_manifest({"owner": "", "files": {name: 1}})
    with pytest.raises(InputError, match="which is no file of a run"):
        restore(tmp_path / "back", store)
    assert not (tmp_path / "back").exists()


def test_a_checkpoint_that_was_cut_short_is_damage(tmp_path):
    run, store = make_run(tmp_path / "run", (10,), "one\n"), open_store(f"file://{tmp_path}/mirror")
    Mirror(run, store)(EndRecord())
    (tmp_path / "mirror" / "checkpoints" / "10" / "state" / "data").write_text("w")
    with pytest.raises(InputError, match=r"is damaged: checkpoints/10/state/data has 1 bytes instead of 10"):
        restore(tmp_path / "back", store)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mirror", "--mirror is 'mirror': it must be a URL, such as s3://bucket/run"),
        ("nothing://x", "--mirror is 'nothing://x': "),
        ("file:///proc/none/run", "--mirror file:///proc/none/run cannot be "),
    ],
)
def test_a_place_that_cannot_be_used_gets_one_sentence_before_anything_starts(capsys, tmp_path, url, message):
    words = ["train", "configs/digits.py", "--workdir", str(tmp_path / "run"), "--mirror", url]
    assert message in fails(capsys, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_run_whose_machine_is_lost_ends_with_the_same_bits(tmp_path, kind, request):
    """kill -9 in the middle, the local folder deleted, the same command on another machine."""
    url = request.getfixturevalue("s3") if kind == "s3" else f"file://{tmp_path}/mirror"
    data, run = tmp_path / "data", tmp_path / "run"
    # Long enough that the first copy is there before the run ends.
    longer = {"plan.epochs_per_stage": "120", "plan.decay_every": "60"}
    finish(command(tmp_path / "whole", data, **longer))
    words = [*command(run, data, **longer), "--mirror", url]
    strike(words, lambda: mirrored_steps(url))
    shutil.rmtree(run)
    output = finish(words)
    assert "resuming after " in output
    states = [json.loads((folder / "summary.json").read_text())["state_sha256"] for folder in (tmp_path / "whole", run)]
    assert states[0] == states[1]
    assert restore(tmp_path / "back", open_store(url))
    assert json.loads((tmp_path / "back" / "summary.json").read_text())["state_sha256"] == states[0]


def mirrored_steps(url: str) -> bool:
    """Whether the mirror has a checkpoint to resume from."""
    time.sleep(0.2)
    manifest = open_store(url).read_manifest()
    return bool(manifest) and any(name.startswith("checkpoints/") for name in manifest["files"])
