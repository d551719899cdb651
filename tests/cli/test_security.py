"""Files of other people are only read, never executed, except configurations, which are code."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_predictions, make_run

import launch
from stepwise_jax.report import report
from stepwise_jax.report.page import rendering
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.workdir.runs import read_runs

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "digits.py")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("was_executed",)


def test_a_checkpoint_of_pickles_is_damaged_and_never_executed(tmp_path, monkeypatch):
    from tests.workdir.saved_states import POSITION, a_state

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2):
            checkpoints.save(a_state(step), POSITION)
    files = sorted(path.relative_to(folder / "2") for path in (folder / "2").rglob("*") if path.is_file())
    assert len(files) > 5
    refused = 0
    for number, path in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        (copy / "2" / path).write_bytes(pickle.dumps(Malicious()))
        messages: list[str] = []
        with Checkpoints(copy, keep=3) as checkpoints:
            restored = checkpoints.restore(a_state(0), messages.append)
        assert restored is not None
        assert int(restored[0].step) == (1 if messages else 2)
        refused += len(messages)
        assert not (tmp_path / "was_executed").exists(), path
    assert refused


def test_nothing_of_a_runs_folder_is_unpickled(folder_run, tmp_path):
    """Python's audit hooks report every class that is unpickled, in any library."""
    script = """
    import sys, launch
    seen = []
    sys.addaudithook(lambda event, args: seen.append(args) if event == "pickle.find_class" else None)
    run, image, out = sys.argv[1:]
    status = [
        launch.main(["predict", run, image]),
        launch.main(["evaluate", run]),
        launch.main(["report", run, "--out", out]),
        launch.main(["export", run, "--out", out + "/net.safetensors"]),
    ]
    print(status, seen)
    """
    image = next((folder_run / "images" / "test").rglob("*.png"))
    words = [sys.executable, "-c", textwrap.dedent(script), str(folder_run / "run"), str(image), str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0] []", done.stderr


@pytest.mark.parametrize("name", ["predictions.npz", "samples.npz"])
def test_arrays_of_pickled_objects_are_errors(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    folder = make_run(tmp_path / "run")
    make_predictions(folder, wrong=[1])
    with np.load(folder / name) as stored:
        arrays = dict(stored)
    objects = {key: np.asarray([Malicious()] * len(value), object) for key, value in arrays.items()}
    np.savez(folder / name, **objects)  # pyright: ignore[reportArgumentType]
    assert launch.main(["report", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert name in capsys.readouterr().err
    assert not (tmp_path / "was_executed").exists()


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_a_prepared_data_set_cannot_have_a_module_imported(data_dir, tmp_path, monkeypatch, capsys, key):
    (tmp_path / "planted_module.py").write_text("import os\nos.mkdir('was_executed')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(data_dir, tmp_path / "data")
    (path,) = (tmp_path / "data" / "stepwise_digits").rglob("features.json")
    document = json.loads(path.read_text())
    feature = document["featuresDict"]["features"]["label"]
    del feature["pythonClassName"]
    feature[key] = "planted_module.Label"
    path.write_text(json.dumps(document))
    words = ["train", DIGITS, "--workdir", str(tmp_path / "run"), "--data.data_dir", str(tmp_path / "data")]
    assert launch.main(words) == 2
    assert "planted_module.Label, which is not TFDS's, and opening data must not load code" in capsys.readouterr().err
    assert not (tmp_path / "was_executed").exists()


def test_a_configuration_is_code_and_its_help_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text("import os\nos.mkdir('was_executed')\n")
    assert launch.main(["plan", "theirs.py"]) == 2
    assert (tmp_path / "was_executed").is_dir()
    capsys.readouterr()
    for command in ("plan", "train", "compare", "sweep"):
        assert launch.main([command, "--help"]) == 0
        assert "a file is Python code, and this command runs it" in " ".join(capsys.readouterr().out.split())


def test_a_strategy_on_record_is_a_name_and_nothing_more(folder_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(folder_run / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text())
    document["strategy"]["name"] = document["experiment"]["plan"]["strategy"] = "planted.strategy"
    document["config"] = str(tmp_path / "planted.py")
    (tmp_path / "planted.py").write_text("import os\nos.mkdir('was_executed')\n")
    path.write_text(json.dumps(document))
    image = next((folder_run / "images" / "test").rglob("*.png"))
    assert launch.main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    assert launch.main(["predict", str(tmp_path / "run"), str(image)]) == 0
    assert not (tmp_path / "was_executed").exists()


HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></style><svg onload=alert(1)>",
    "$\\frac{1}{0}$ &lt;b&gt; {0} %s",
]


class Tags(HTMLParser):
    """The tags, attributes and words of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Tags:
    """The page of a run whose names are harmless."""
    folder = make_run(tmp_path_factory.mktemp("plain") / "run")
    make_predictions(folder, wrong=[1, 2])
    return Tags(rendering.to_html(report.runs_page(read_runs([folder]))))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_report_escapes_every_name_that_comes_from_data(tmp_path, plain, hostile):
    folder = make_run(tmp_path / hostile.replace("/", "\u2215"))
    make_predictions(folder, wrong=[1, 2])
    with np.load(folder / "predictions.npz") as stored:
        arrays = dict(stored)
    arrays["classes"] = np.asarray([f"{hostile} {number}" for number in range(len(arrays["classes"]))])
    np.savez(folder / "predictions.npz", **arrays)
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document["config"] = document["device"] = document["experiment"]["model"]["name"] = hostile
    document["experiment"]["data"]["name"] = hostile
    document["strategy"] = {"name": hostile, "file_sha256": None}
    for stage in document["stages"]:
        stage["name"] = hostile
    path.write_text(json.dumps(document))
    shown = Tags(rendering.to_html(report.runs_page(read_runs([folder]))))
    assert shown.tags == plain.tags
    assert shown.attributes == plain.attributes
    assert hostile in shown.words
