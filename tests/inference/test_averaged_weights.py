"""`predict` and `export` with a run's averaged weights: held against the network applied to what Orbax itself reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

import launch
import models
import stepwise_jax as sj
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.inference.trained import open_trained
from tests.cli.command_line import fails
from tests.digits_run import config, examples

SHAPE = {"small_images": True, "width": 4, "blocks": (1,)}
NETWORK = models.build("resnet_small", num_classes=10, **SHAPE)


def apply(variables: dict[str, Any], images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """The logits [b, 10] of grey uint8 images."""
    inputs = ((np.repeat(images, 3, axis=3) / 255 - mean) / std).astype(np.float32)
    kept = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    return jax.jit(lambda kept: jnp.asarray(NETWORK.apply(kept, inputs, train=False)))(kept)


@pytest.fixture(scope="module")
def averaged(data_dir, tmp_path_factory) -> Path:
    """The folder of a run whose averaged weights stay far from the raw ones."""
    changes = {"model.name": "resnet_small"} | {f"model.{name}": value for name, value in SHAPE.items()}
    changes |= {"data.image_size": 8, "plan.learning_rate": 0.05, "optimizer.ema_decay": 0.99}
    folder = tmp_path_factory.mktemp("averaged") / "run"
    for _ in sj.train(override_fields(config(data_dir), changes), workdir=folder):
        pass
    return folder


@pytest.fixture(scope="module")
def images(data_dir) -> np.ndarray:
    """uint8 [20, 8, 8, 1]"""
    return examples(data_dir, "test").images[:20]


@pytest.fixture(scope="module")
def paths(images, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(images):
        Image.fromarray(image[:, :, 0]).save(folder / f"{number:02d}.png")
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def expected(averaged, images) -> dict[str, np.ndarray]:
    """Probabilities of the images, float32 [20, 10], with the raw and with the averaged weights."""
    newest = max((averaged / "checkpoints").iterdir(), key=lambda path: int(path.name))
    checkpointer = ocp.PyTreeCheckpointer()
    tree = checkpointer.metadata(newest / "state").item_metadata.tree  # pyright: ignore[reportOptionalMemberAccess]
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    saved = checkpointer.restore(newest / "state", restore_args=as_numpy)
    signature = json.loads((averaged / "preprocessing.json").read_text())

    def probabilities(variables: dict[str, Any]) -> np.ndarray:
        return np.asarray(jax.nn.softmax(apply(variables, images, signature["mean"], signature["std"])))

    return {"raw": probabilities(saved), "ema": probabilities(saved["ema"])}


@pytest.mark.parametrize("words", [[], ["--weights", "raw"], ["--weights", "ema"]])
def test_predict_uses_the_chosen_weights(averaged, paths, expected, capsys, words):
    assert launch.main(["predict", str(averaged), *paths, "--top", "10", *words, "--json"]) == 0
    rows = [row["classes"] for row in json.loads(capsys.readouterr().out)]
    found = [[each["probability"] for each in sorted(row, key=lambda each: each["name"])] for row in rows]
    np.testing.assert_allclose(found, expected[words[-1] if words else "raw"], rtol=1e-4, atol=1e-6)
    # Otherwise either weights would pass.
    assert np.abs(expected["ema"] - expected["raw"]).max() > 0.02


def test_the_averaged_network_has_the_scores_that_the_run_recorded_for_it(averaged, data_dir):
    metrics = json.loads((averaged / "summary.json").read_text())["metrics"]
    trained = open_trained(averaged, NETWORK, "ema")
    test, (_, mean, std) = examples(data_dir, "test"), trained.signature.preprocessing
    logs = np.asarray(jax.nn.log_softmax(apply(trained.variables, test.images, mean, std)))
    assert metrics["ema_loss"] == pytest.approx(-logs[np.arange(len(logs)), test.labels].mean(), rel=1e-4)
    assert metrics["ema_loss"] != pytest.approx(metrics["loss"], rel=0.01)


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_exports_hold_the_chosen_weights_and_say_which(averaged, images, expected, tmp_path, capsys, weights):
    for suffix in (".stablehlo", ".safetensors"):
        out = str(tmp_path / f"x{suffix}")
        assert launch.main(["export", str(averaged), "--out", out, "--weights", weights]) == 0
        assert ("averaged weights" in capsys.readouterr().out) == (weights == "ema")
    exported = jax.export.deserialize(bytearray((tmp_path / "x.stablehlo").read_bytes()))
    np.testing.assert_allclose(exported.call(images), expected[weights], rtol=1e-4, atol=1e-6)
    assert json.loads((tmp_path / "x.json").read_text())["weights"] == weights
    content = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"]["weights"] == weights
    back = models.load_weights(
        "resnet_small", str(tmp_path / "x.safetensors"), num_classes=10, keep_head=True, seed=0, **SHAPE
    )
    theirs = open_trained(averaged, NETWORK, weights).variables
    jax.tree.map(np.testing.assert_array_equal, back, {name: dict(theirs[name]) for name in ("params", "batch_stats")})


def test_averaged_weights_that_a_run_does_not_have_get_one_sentence(folder_run, paths, tmp_path, capsys):
    run = str(folder_run / "run")
    message = f"error: weights is 'ema': it must be 'raw': {run} was trained without optimizer.ema_decay\n"
    assert fails(capsys, "predict", run, paths[0], "--weights", "ema") == message
    assert fails(capsys, "export", run, "--out", str(tmp_path / "x.stablehlo"), "--weights", "ema") == message
    assert not list(tmp_path.iterdir())


def test_weights_of_another_name_are_refused(averaged):
    with pytest.raises(InputError, match="weights is 'mean': it must be one of raw, ema"):
        open_trained(averaged, NETWORK, "mean")
