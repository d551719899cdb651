"""Weight files as what a run starts from, and the command that checks and keeps them."""

import json

import jax
import numpy as np
import pytest

import launch
import models
from stepwise_jax.cli import networks
from stepwise_jax.data import datasets
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.functional.networks import build_network
from stepwise_jax.plans import planning
from stepwise_jax.training import loop
from stepwise_jax.training.session import open_session
from tests.cli.command_line import DIGITS, fails

NETWORK = "resnet_small"
SHAPE = {"width": 4, "small_images": True}
SHORT = ["--model.width", "4", "--data.image_size", "8", "--plan.fractions", "0.2", "1", "--plan.epochs_per_stage", "1"]
SHORT += ["--plan.decay_every", "1", "--plan.batch_multipliers", "1", "2", "--plan.carry", "nothing"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(data_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.chdir(tmp_path)


def state_dict(name=NETWORK, num_classes=10, seed=0, **shape):
    net = models.build(name, num_classes=num_classes, **shape)
    abstract = jax.eval_shape(lambda: net.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32), train=False))
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.2, leaf.shape).astype(np.float32), abstract)
    return models.to_torch(name, variables)


def write(path, arrays):
    models.write_safetensors(path, arrays)
    return path


def initial_params(experiment, tmp_path, path, **changes):
    """Parameters that a run starts from."""
    changes = {"model.initial_weights": str(path), **changes}
    config = override_fields(experiment, changes)
    sizes = datasets.sizes(config.data)
    planned = planning.make_plan(config.plan, sizes.train, config.optimizer)
    variables = networks.initial_variables(config, sizes.num_classes)
    network = build_network(config, sizes.num_classes)
    (tmp_path / "run").mkdir()
    with open_session(config, planned, network, variables, tmp_path / "run") as session:
        return jax.device_get(session.make_initial_state().params)


def test_a_run_starts_from_the_file_with_a_new_head(experiment, tmp_path):
    arrays = state_dict(num_classes=7, **SHAPE)
    params = initial_params(experiment, tmp_path, write("w.safetensors", arrays), seed=5)
    np.testing.assert_array_equal(params["conv1"]["kernel"], arrays["conv1.weight"].transpose(2, 3, 1, 0))
    net = models.build(NETWORK, num_classes=10, **SHAPE)
    fresh = jax.jit(net.init, static_argnames="train")(jax.random.key(5), np.zeros((1, 8, 8, 3), "f"), train=False)
    np.testing.assert_array_equal(params["fc"]["kernel"], fresh["params"]["fc"]["kernel"])


def test_a_run_starts_from_the_file_with_its_head(experiment, tmp_path):
    arrays = state_dict(**SHAPE)
    prefixed = {f"module.{key}": array for key, array in arrays.items()}
    params = initial_params(experiment, tmp_path, write("w.safetensors", prefixed), **{"model.keep_head": True})
    np.testing.assert_array_equal(params["fc"]["kernel"], arrays["fc.weight"].T)


def train(*words):
    return launch.main(["train", DIGITS, "--workdir", "run", *SHORT, *words])


def test_a_run_resumes_with_its_weights_wherever_they_lie_and_with_no_others(capsys, tmp_path):
    ours = write("ours.safetensors", state_dict(**SHAPE))
    theirs = write("theirs.safetensors", state_dict(seed=1, **SHAPE))
    assert train("--model.initial_weights", ours) == 0
    first = json.loads((tmp_path / "run" / "summary.json").read_text())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert len(config["initial_weights_sha256"]) == 64
    moved = (tmp_path / ours).rename(tmp_path / "moved.safetensors")
    assert train("--model.initial_weights", str(moved)) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == first
    capsys.readouterr()
    told = "model.initial_weights: not the weights that the run started from"
    assert told in fails(capsys, "train", DIGITS, "--workdir", "run", *SHORT, "--model.initial_weights", theirs)
    assert told in fails(capsys, "train", DIGITS, "--workdir", "run", *SHORT)
    assert launch.main(["evaluate", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == first["top1"]


def test_stages_that_restart_start_from_unchanged_weights(experiment, tmp_path):
    """The training call takes over the memory of its state; it must not be the file's."""
    config = override_fields(experiment, {"plan.carry": "nothing", "plan.epochs_per_stage": 1})
    network = models.build(NETWORK, num_classes=10, **SHAPE)
    variables = models.from_torch(NETWORK, state_dict(**SHAPE), **SHAPE)
    before = jax.tree.map(np.copy, variables)
    planned = planning.make_plan(config.plan, datasets.sizes(config.data).train, config.optimizer)
    loop.run(config, planned, network, tmp_path / "run", variables=variables)
    jax.tree.map(np.testing.assert_array_equal, variables, before)


@pytest.mark.parametrize(
    ("words", "arrays", "told"),
    [
        (["--model.keep_head", "True"], {"num_classes": 7}, "fc.weight is [7, 32] in the file and [10, 32] in"),
        ([], {"width": 8}, "is [8, 3, 3, 3] in the file and [4, 3, 3, 3] in resnet_small"),
        ([], {"small_images": False}, "is [4, 3, 7, 7] in the file and [4, 3, 3, 3] in resnet_small"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_both_shapes(capsys, tmp_path, words, arrays, told):
    write("w.safetensors", state_dict(**{**SHAPE, **arrays}))
    words = [*SHORT, "--model.initial_weights", "w.safetensors", *words]
    assert told in fails(capsys, "train", DIGITS, "--workdir", "run", *words)
    assert not (tmp_path / "run").exists()


def test_import_keeps_what_the_network_needs(capsys, tmp_path):
    arrays = state_dict(small_images=False, num_classes=3)
    extra = {f"module.{key}": array.astype(np.float16) for key, array in arrays.items()}
    extra["module.bn1.num_batches_tracked"] = np.asarray(7)
    write("theirs.safetensors", extra)
    assert launch.main(["import-weights", NETWORK, "theirs.safetensors"]) == 0
    count = sum(array.size for key, array in arrays.items() if "running" not in key)
    expected = f"{NETWORK}.safetensors: {NETWORK}, {count:,} parameters, a head of 3 classes\n"
    assert capsys.readouterr().out == expected
    kept = models.read_weights(f"{NETWORK}.safetensors")
    assert kept.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(kept[key], array.astype(np.float16).astype(np.float32))


def test_import_takes_a_file_without_a_head(capsys):
    arrays = state_dict(small_images=False)
    write("w.safetensors", {key: array for key, array in arrays.items() if not key.startswith("fc.")})
    assert launch.main(["import-weights", NETWORK, "w.safetensors", "--out", "out.safetensors"]) == 0
    assert "no head" in capsys.readouterr().out
    assert "fc.weight" not in models.read_weights("out.safetensors")


def test_weights_of_another_network_are_named(capsys):
    write("w.safetensors", state_dict("resnet18", num_classes=5))
    told = fails(capsys, "import-weights", "resnet34", "w.safetensors")
    assert "w.safetensors" in told
    assert "of resnet34 is missing" in told
    assert "these weights are resnet18's" in told


def spoiled(name, position, value, **shape):
    arrays = state_dict(**shape)
    arrays[name].flat[position] = value
    return arrays


def test_several_networks_are_imported_by_key_before_a_run_starts_from_them(capsys, tmp_path):
    model, ema = state_dict(**SHAPE), state_dict(seed=1, **SHAPE)
    both = {f"model.{key}": array for key, array in model.items()} | {f"ema.{key}": array for key, array in ema.items()}
    write("both.safetensors", both)
    words = ["train", DIGITS, "--workdir", "run", *SHORT, "--model.initial_weights", "both.safetensors"]
    sentence = "holds the weights of several networks: ema, model; choose one with the option --key of import-weights"
    assert sentence in (told := fails(capsys, *words))
    assert "model.initial_weights: both.safetensors" in told
    assert not (tmp_path / "run").exists()
    words = ["import-weights", NETWORK, "both.safetensors", "--width", "4", "--small-images"]
    words += ["--out", "ema.safetensors"]
    assert sentence in fails(capsys, *words)
    assert launch.main([*words, "--key", "ema"]) == 0
    kept = models.read_weights("ema.safetensors")
    for key, array in ema.items():
        np.testing.assert_array_equal(kept[key], array)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (lambda: spoiled("bn1.running_var", 2, np.nan, **SHAPE), "bn1.running_var holds 1 values that are not finite"),
        (
            lambda: spoiled("layer1.0.conv1.weight", 5, np.inf, **SHAPE),
            "layer1.0.conv1.weight holds 1 values that are not finite",
        ),
        (
            lambda: {key: array.astype(np.float64) * 1e300 for key, array in state_dict(**SHAPE).items()},
            "values that are not finite (NaN or infinite) in float32",
        ),
        (
            lambda: {key: array.astype(np.int8) for key, array in state_dict(**SHAPE).items()},
            "is of type int8; it must hold floating-point numbers",
        ),
        (
            lambda: state_dict(**SHAPE) | {"conv1.weight": np.ones((4, 1, 3, 3), np.float32)},
            "conv1.weight is [4, 1, 3, 3], for grey images; resnet_small takes colour images, [4, 3",
        ),
        (
            lambda: state_dict(**SHAPE) | {"conv1.weight": np.ones(4, np.float32)},
            "conv1.weight is [4] in the file and [4, 3, 3, 3] in resnet_small",
        ),
        (
            lambda: {"features.0.weight": np.ones((3, 3), np.float32), "features.0.bias": np.ones(3, np.float32)},
            "conv1.weight of resnet_small is missing (60 of 60 arrays are); the file has features.0.",
        ),
    ],
)
def test_weights_that_no_run_should_start_from_are_refused(capsys, tmp_path, arrays, told):
    write("w.safetensors", arrays())
    words = ["--width", "4", "--small-images", "--out", "out.safetensors"]
    assert told in fails(capsys, "import-weights", NETWORK, "w.safetensors", *words)
    assert not (tmp_path / "out.safetensors").exists()
    words = [*SHORT, "--model.initial_weights", "w.safetensors"]
    assert told in fails(capsys, "train", DIGITS, "--workdir", "run", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("head", [np.ones((), np.float32), np.ones((0, 128), np.float32), np.ones(3, np.float32)])
def test_a_head_that_is_none_gets_a_sentence(capsys, head):
    write("w.safetensors", state_dict(small_images=False) | {"fc.weight": head})
    assert "a head is [classes, features]" in fails(capsys, "import-weights", NETWORK, "w.safetensors")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["resnet51", "w.safetensors"], "resnet50"),
        (["resnet20", "w.safetensors"], "did you mean resnet18, resnet34, resnet50?"),
        ([NETWORK, "w.safetensors", "--key", "ema"], "holds no weights under the key ema, but under ."),
        ([NETWORK, "w.safetensors", "--blocks", "1,1,1,0"], "model.blocks"),
        ([NETWORK, "w.safetensors", "--width", "-1"], "model.width"),
        ([NETWORK, "page.pth"], "page.pth is a page of a web site, not weights"),
        ([NETWORK, "pointer.pth"], "pointer.pth is a Git LFS pointer, not the weights themselves"),
        (["resnet50", "none.pth"], "none.pth is not a file"),
        ([NETWORK, "w.safetensors", "--out", "no/such/folder.safetensors"], "a folder that exists"),
        ([NETWORK, "w.safetensors", "--out", "w.safetensors"], "is the imported file"),
        ([NETWORK, "damaged.pth"], "neither a .safetensors file nor one of torch.save"),
    ],
)
def test_bad_imports_get_one_sentence_and_leave_nothing(capsys, tmp_path, words, told):
    write("w.safetensors", state_dict(small_images=False))
    (tmp_path / "damaged.pth").write_bytes(b"not weights")
    (tmp_path / "page.pth").write_bytes(b"<html><body>404</body></html>")
    (tmp_path / "pointer.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert told in fails(capsys, "import-weights", *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
