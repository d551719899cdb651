"""The command `export`: a StableHLO file that JAX alone runs, and PyTorch's names, either way the same network."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

import launch
import models
from examples import exported_network
from stepwise_jax.cli import networks
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.inference import image_files
from stepwise_jax.inference.export import (
    EXPORT_SUFFIXES,
    PLATFORMS,
    check_export_path,
    describe_network,
    export_stablehlo,
)
from stepwise_jax.inference.predict import classify_files, make_classifier
from stepwise_jax.inference.trained import TrainedNetwork
from stepwise_jax.workdir.folder import read_experiment
from stepwise_jax.workdir.signature import Signature
from tests.cli.command_line import DIGITS, fails

RANDOM = np.random.default_rng(0)

# A program without stepwise_jax, run in a folder from which it could not be imported.
JAX_ALONE = """
import sys
import jax, numpy as np
from jax import export
with open(sys.argv[1], "rb") as file:
    network = export.deserialize(file.read())
images = np.load(sys.argv[2])
np.savez(sys.argv[3], all=network.call(images), one=network.call(images[:1]))
assert not {"stepwise_jax", "models", "flax"} & set(sys.modules), "it needs more than JAX"
"""


@pytest.fixture(scope="module")
def trained(folder_run):
    return networks.load_trained(folder_run / "run")


@pytest.fixture(scope="module")
def exported(folder_run, tmp_path_factory) -> Path:
    """A folder with the run as cow.stablehlo, cow.json and cow.safetensors."""
    folder = tmp_path_factory.mktemp("exported")
    for suffix in (".stablehlo", ".safetensors"):
        assert launch.main(["export", str(folder_run / "run"), "--out", str(folder / f"cow{suffix}")]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["cow.json", "cow.safetensors", "cow.stablehlo"]
    return folder


def test_jax_alone_gives_the_probabilities_of_the_run(folder_run, exported, trained, tmp_path):
    kept = np.load(folder_run / "run" / "predictions.npz")
    paths = [str(folder_run / "images" / name) for name in kept["ids"].tolist()]
    images = np.stack([np.asarray(image_files.read_image(path, trained.signature.image_shape)) for path in paths])
    np.save(tmp_path / "images.npy", images)
    words = [str(exported / "cow.stablehlo"), str(tmp_path / "images.npy"), str(tmp_path / "out.npz")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XLA_")}
    command = [sys.executable, "-c", JAX_ALONE, *words]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(found["all"], kept["probabilities"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["one"], kept["probabilities"][:1], rtol=1e-5, atol=1e-5)
    assert found["all"].dtype == np.float32


def test_the_description_says_how_to_use_it(exported, trained):
    document = json.loads((exported / "cow.json").read_text())
    assert document["classes"] == ["cat", "dog", "old cow"]
    assert (document["image_size"], document["channels"]) == (16, 3)
    assert document["input"].pop("resizing").startswith("Decode with OpenCV")
    assert document["input"] == {"dtype": "uint8", "shape": ["b", 16, 16, 3], "colours": "RGB"}
    assert document["output"] == {"dtype": "float32", "shape": ["b", 3], "values": "probabilities"}
    assert document["platforms"] == ["cpu", "cuda", "tpu"]
    assert document["versions"]["jax"] == jax.__version__
    assert document["network_shape"] == {"small_images": True, "stem_stride": 1, "width": 4, "blocks": [1]}
    assert document["updates"] == trained.updates


ODD_SIZES = [(16, 16), (7, 11), (15, 40), (33, 20), (31, 64), (64, 48), (127, 130), (257, 129), (16, 300)]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_exported_network_agrees_with_predict_on_images_of_any_size(exported, trained, tmp_path, suffix):
    paths = [str(tmp_path / f"{height}x{width}{suffix}") for height, width in ODD_SIZES]
    for path, (height, width) in zip(paths, ODD_SIZES, strict=True):
        turned = Image.Exif()
        turned[0x0112] = 6
        pixels = cv2.resize(
            RANDOM.integers(0, 256, (9, 9, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
        )
        Image.fromarray(pixels).save(path, exif=turned if width > height else Image.Exif())
    images = np.stack([exported_network.read_image(path, 16) for path in paths])
    read = [image_files.read_image(path, trained.signature.image_shape) for path in paths]
    np.testing.assert_array_equal(images, np.stack([np.asarray(pixels) for pixels in read]))
    network = jax.export.deserialize(bytearray((exported / "cow.stablehlo").read_bytes()))
    predicted = np.stack([np.asarray(p.probabilities) for p in classify_files(trained, paths)])
    np.testing.assert_allclose(np.asarray(network.call(images)), predicted, rtol=1e-5, atol=1e-6)


def test_the_example_prints_what_predict_prints(exported, folder_run, capsys):
    paths = sorted(str(path) for path in (folder_run / "images" / "test").rglob("*.*"))[:3]
    exported_network.main(str(exported / "cow.stablehlo"), paths)
    lines = capsys.readouterr().out.splitlines()
    assert launch.main(["predict", str(folder_run / "run"), *paths, "--json"]) == 0
    for line, image in zip(lines, json.loads(capsys.readouterr().out), strict=True):
        best = image["classes"][0]
        assert line == f"{image['image']}: {best['name']} {100 * best['probability']:.2f} %"


def test_a_clone_that_is_not_installed_exports_too(trained, monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert describe_network(trained)["versions"]["stepwise-jax"] is None


def test_other_images_are_refused_when_the_file_is_called(exported):
    network = jax.export.deserialize(bytearray((exported / "cow.stablehlo").read_bytes()))
    assert network.platforms == PLATFORMS
    for shape, dtype in (((2, 17, 16, 3), np.uint8), ((2, 16, 16, 1), np.uint8), ((2, 16, 16, 3), np.float32)):
        with pytest.raises(ValueError, match=r"(?i)shape|dtype|type"):
            network.call(np.zeros(shape, dtype))


def test_pytorchs_names_come_back_to_the_bit(exported, trained):
    state_dict = models.read_weights(exported / "cow.safetensors")
    back = models.from_torch("resnet_small", state_dict, width=4, blocks=(1,), small_images=True)
    ours = {name: dict(trained.variables[name]) for name in ("params", "batch_stats")}
    assert jax.tree.structure(back) == jax.tree.structure(ours)
    jax.tree.map(np.testing.assert_array_equal, back, ours)


def test_the_header_of_safetensors_describes_the_network(exported):
    content = (exported / "cow.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert json.loads(header["classes"]) == ["cat", "dog", "old cow"]
    assert (header["network"], header["dataset"], header["image_size"]) == ("resnet_small", "image_folder", "16")
    assert all(isinstance(value, str) for value in header.values())


def test_training_starts_from_the_export_with_its_head(exported, folder_run, trained):
    experiment = read_experiment(folder_run / "run")
    assert experiment is not None
    changes = {"model.initial_weights": str(exported / "cow.safetensors"), "model.keep_head": True}
    variables = networks.initial_variables(override_fields(experiment, changes), 3)
    assert variables is not None
    jax.tree.map(np.testing.assert_array_equal, variables["params"], dict(trained.variables["params"]))


def test_train_takes_the_export(exported, folder_run, tmp_path, capsys):
    words = ["--data.name", "image_folder", "--data.root", str(folder_run / "images")]
    words += ["--data.data_dir", str(folder_run / "d"), "--model.width", "4", "--model.blocks", "1"]
    words += ["--plan.strategy", "baseline", "--plan.fractions", "1", "--plan.batch_multipliers", "1"]
    words += ["--plan.batch_size", "8", "--plan.baseline_epochs", "1", "--plan.learning_rate", "1e-30"]
    words += ["--evaluation.batch_size", "10", "--model.keep_head", "True"]
    words += ["--model.initial_weights", str(exported / "cow.safetensors")]
    assert launch.main(["train", DIGITS, "--workdir", str(tmp_path / "run"), *words]) == 0
    ours, theirs = (
        networks.load_trained(folder).variables["params"] for folder in (tmp_path / "run", folder_run / "run")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


@pytest.mark.parametrize("name", ["resnet_small", "res2net_small"])
def test_a_grey_network_takes_grey_images_of_the_size_that_it_sees(name):
    """The digits are kept at 8 x 8 pixels and scaled up on the device; the export takes them scaled."""
    network = models.build(name, num_classes=10, width=8, blocks=(1, 1, 1, 1), small_images=True)
    shapes = jax.eval_shape(
        lambda key: network.init(key, np.zeros((1, 16, 16, 3), "f"), train=False), jax.random.key(0)
    )
    variables = jax.tree.map(lambda leaf: RANDOM.uniform(0.01, 0.2, leaf.shape).astype(np.float32), shapes)
    signature = Signature(Preprocessing(16, (0.3,) * 3, (0.2,) * 3), (8, 8, 1), tuple("0123456789"), "digits")
    trained = TrainedNetwork(ExperimentConfig(), network, variables, 1, signature)
    images = RANDOM.integers(0, 256, (3, 16, 16, 1), dtype=np.uint8)
    expected = jax.jit(make_classifier(trained))(variables, images)
    exported = export_stablehlo(trained)
    assert exported.in_avals[0].shape[1:] == (16, 16, 1)
    np.testing.assert_allclose(exported.call(images), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.sum(expected, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "existing", "message"),
    [
        ("x.onnx", None, "its name must end with .stablehlo or .safetensors"),
        ("x", None, "its name must end with .stablehlo or .safetensors"),
        ("none/x.stablehlo", None, "there is no folder none"),
        ("x.stablehlo", "x.stablehlo", "x.stablehlo exists already"),
        ("x.stablehlo", "x.json", "x.json exists already"),
        ("x.safetensors", "x.safetensors", "x.safetensors exists already"),
    ],
)
def test_bad_targets_get_one_sentence_and_change_nothing(
    folder_run, capsys, tmp_path, monkeypatch, name, existing, message
):
    monkeypatch.chdir(tmp_path)
    if existing:
        (tmp_path / existing).write_text("mine")
    assert message in fails(capsys, "export", str(folder_run / "run"), "--out", name)
    assert [path.name for path in tmp_path.iterdir()] == ([existing] if existing else [])
    assert not existing or (tmp_path / existing).read_text() == "mine"


@pytest.mark.parametrize("suffix", EXPORT_SUFFIXES)
def test_a_folder_that_cannot_be_written_is_found_before_the_run_is_read(capsys, tmp_path, suffix):
    # Nobody creates files in /proc, whatever their rights.
    message = fails(capsys, "export", str(tmp_path / "none"), "--out", f"/proc/x{suffix}")
    assert message == f"error: --out /proc/x{suffix} cannot be written: No such file or directory\n"


def test_a_json_beside_does_not_hinder_safetensors(tmp_path):
    (tmp_path / "x.json").write_text("mine")
    check_export_path(tmp_path / "x.safetensors")


def test_a_folder_that_is_no_run_gets_one_sentence(capsys, tmp_path):
    message = fails(capsys, "export", str(tmp_path / "none"), "--out", str(tmp_path / "x.stablehlo"))
    assert "there is no folder" in message
    assert list(tmp_path.iterdir()) == []
