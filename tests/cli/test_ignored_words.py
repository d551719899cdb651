"""Words of a command that would be without effect or meaning: each gets a sentence before any work."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import write_images

import launch
from stepwise_jax.data import datasets
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig
from tests.cli.command_line import DIGITS, fails

STOPPED = Path(__file__).parents[1] / "fixtures" / "version_0_1" / "stopped"


@pytest.fixture(autouse=True)
def prepared_digits(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.name"], "--data.name has no value: give a string"),
        (["--data.name", "--seed", "1"], "--data.name has no value: give a string"),
        (["--plan.batch_size"], "--plan.batch_size has no value: give a whole number"),
        (["--plan.carry"], "--plan.carry has no value: give one of 'state', 'weights', 'nothing'"),
        (["--data.name="], "data.name is '': no such data set is known"),
    ],
)
def test_a_field_without_a_value_is_named(capsys, words, message):
    assert message in fails(capsys, "plan", DIGITS, *words)


def test_a_folder_that_the_data_set_would_ignore_is_refused(capsys, tmp_path):
    message = "error: data.root is '/images': only image_folder is trained on from a folder"
    words = [DIGITS, "--data.root", "/images"]
    assert fails(capsys, "plan", *words) == f"{message}\n"
    assert fails(capsys, "train", *words, "--workdir", str(tmp_path / "run")) == f"{message}\n"
    command = "; `python launch.py prepare cifar10 --from /images` prepares another data set, once"
    assert fails(capsys, "plan", *words, "--data.name", "cifar10") == f"{message}{command}\n"
    assert "did you mean image_folder?" in fails(capsys, "plan", *words, "--data.name", "images_folder")
    with pytest.raises(InputError, match="only image_folder is trained on from a folder"):
        datasets.prepare(DataConfig(root="/images"), lambda *_: None)
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_that_recorded_such_a_folder_is_evaluated_without_it(capsys, tmp_path):
    run = Path(shutil.copytree(STOPPED, tmp_path / "run"))
    document = json.loads((run / "config.json").read_text())
    document["experiment"]["data"]["root"] = "/images"
    (run / "config.json").write_text(json.dumps(document))
    assert launch.main(["evaluate", str(run)]) == 0
    capsys.readouterr()
    assert "data.root is '/others'" in fails(capsys, "evaluate", str(run), "--data.root", "/others")


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_what_is_verified_has_no_source(capsys, name):
    message = f"error: --from '/x': --verify compares the prepared {name} with the hashes recorded then, not with its"
    assert fails(capsys, "prepare", name, "--from", "/x", "--verify").startswith(message)


def test_images_of_a_published_data_set_are_not_skipped_in_silence(capsys, tmp_path):
    words = ["prepare", "face_mask", "--from", str(tmp_path), "--data.unreadable", "skip"]
    assert "--data.unreadable is 'skip': only of an image_folder" in fails(capsys, *words)


def test_predict_and_export_say_that_the_run_is_unfinished(capsys, tmp_path):
    write_images(tmp_path / "images", 1, seed=0)
    assert launch.main(["predict", str(STOPPED), str(tmp_path / "images")]) == 0
    said = "(the run is unfinished)"
    assert f"warning: {STOPPED}: the network is that after " in (warned := capsys.readouterr().err)
    assert said in warned
    assert launch.main(["export", str(STOPPED), "--out", str(tmp_path / "x.safetensors")]) == 0
    assert said in capsys.readouterr().out
