"""Functions of one's own in a run: a workdir that a bad one leaves free, observers that fail, files that change."""

import json
from pathlib import Path
from typing import Any

import optax
import pytest
from conftest import TinyNet

import launch
import stepwise_jax as sj
from stepwise_jax.experiment.config_files import load_module
from stepwise_jax.experiment.serialization import field_differences, override_fields
from stepwise_jax.functional import networks
from stepwise_jax.functional.recipe import with_recipe
from stepwise_jax.plans.stage import Stage
from stepwise_jax.workdir.predictions import read_predictions
from stepwise_jax.workdir.record_file import read_records
from tests.cli.command_line import DIGITS, fails

SHORT = {"plan.fractions": (0.1, 1.0), "plan.batch_multipliers": (1, 1), "plan.epochs_per_stage": 1}


LIST: Any = ["top1"]
NOTHING: Any = lambda learning_rate: None  # noqa: E731
HALF = sj.metrics.Metric(lambda logits, labels: logits.sum(axis=1), lambda sums, examples: sums[7])


@pytest.fixture
def short(experiment):
    return override_fields(experiment, SHORT)


def finish(*args, **words):
    """Trains, and returns the run's summary."""
    *_, last = sj.train(*args, **words)
    assert last.kind == "summary"
    return last.summary


def load(file: Path, name: str):
    return getattr(load_module(file), name)


def no_strategy(plan, examples):
    return (Stage("A", 1.0, examples, 32, 0.1, 1, hyperparameters={"nesterov": 1.0}),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": sj.Recipe(loss=lambda logits, targets: logits.mean())}, "must return one number for each example"),
        ({"recipe": sj.Recipe(augment=lambda key, images, labels: (images[1:], labels))}, "turns images float32"),
        ({"recipe": sj.Recipe(metrics={"mine": lambda logits, labels: logits.sum()})}, "the metric mine returns"),
        ({"recipe": sj.Recipe(metrics=LIST)}, "recipe.metrics is ['top1']: it must be a dictionary of functions"),
        (
            {"recipe": sj.Recipe(metrics={"mine": lambda logits, labels: logits})},
            "must return one value for each example",
        ),
        ({"recipe": sj.Recipe(metrics={"mine": HALF})}, "the metric mine makes no number of sums [] over 2 examples"),
        ({"recipe": sj.Recipe(optimizer=NOTHING)}, "fails: AttributeError"),
        (
            {"recipe": sj.Recipe(optimizer=lambda learning_rate, b1: optax.adam(b1))},
            "but learning_rate needs a default",
        ),
        ({"recipe": "adamw"}, "recipe is a str: it must be a stepwise_jax.Recipe"),
        ({"recipe": sj.Recipe(optimizer=lambda momentum=0.9: optax.sgd(0.1))}, "must be learning_rate"),
        ({"plan.strategy": no_strategy}, "sets 'nesterov', which the optimizer sgd does not take"),
        ({"plan.carry": lambda state, make: state.params}, "plan.carry: <lambda> returned dict"),
        ({"plan.image_sizes": (4, 8)}, "image_size of stage 1 (10%) is 4: TinyNet does not take such images"),
        ({"plan.microbatches": (1, 3)}, "microbatches of stage 2 (O) is 3: it must be a divisor of batch_size"),
        ({"data.augmentation": ("crop:x",)}, "data.augmentation is 'crop:x': padding is 'x'"),
        ({"network": TinyNet(7)}, "TinyNet turns [2, 8, 8, 3] into (2, 7), not [2, 10]"),
        ({"network": 3}, "network is a int: it must be a flax.linen.Module"),
        ({"observers": [3]}, "observers has 3: it must be a function of a record"),
    ],
)
def test_a_function_that_does_not_fit_leaves_the_workdir_free(short, tmp_path, given, message):
    changes = {name: value for name, value in given.items() if "." in name}
    words: dict[str, Any] = {"network": TinyNet()} | {name: value for name, value in given.items() if "." not in name}
    with pytest.raises(sj.InputError) as refused:
        sj.train(override_fields(short, changes), workdir=tmp_path / "run", **words)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_corrected_try_trains_in_the_same_workdir(short, tmp_path):
    def wrong(key, images, labels):
        return images.round().astype(int), labels

    with pytest.raises(sj.InputError, match="the augmentation wrong turns images"):
        sj.train(short, TinyNet(), workdir=tmp_path, recipe=sj.Recipe(augment=wrong))
    summary = finish(short, TinyNet(), workdir=tmp_path, recipe=sj.Recipe(augment=sj.augmentation.flip()))
    assert summary["updates"] == 4 + 44


def test_an_observer_that_raises_is_reported_once_and_training_goes_on(short, tmp_path):
    calls, seen = [], []

    def failing(record):
        calls.append(record)
        raise ZeroDivisionError("my own fault")

    summary = finish(short, TinyNet(), workdir=tmp_path, observers=[failing, seen.append])
    assert summary["updates"] == 4 + 44
    assert len(calls) == 1
    events = [row["message"] for row in read_records(tmp_path).events if row["name"] == "observer"]
    expected = "the observer failing failed (ZeroDivisionError: my own fault): it is no longer called"
    assert events == [expected]
    assert [record.message for record in seen if record.kind == "event" and record.name == "observer"] == events


METRIC = "import jax.numpy as jnp\n\n\ndef spread(logits, labels):\n    return jnp.ptp(logits, axis=1)\n"


def test_a_function_whose_file_has_changed_or_gone_is_named(short, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "build_network", lambda *_: TinyNet())
    file, run = tmp_path / "mine.py", str(tmp_path / "run")
    file.write_text(METRIC)
    spread = load(file, "spread")
    summary = finish(short, workdir=run, recipe=sj.Recipe(metrics={"spread": spread}), network=TinyNet())
    assert launch.main(["evaluate", run]) == 0
    assert f"spread {summary['metrics']['spread']:.4g}" in capsys.readouterr().out

    file.write_text(METRIC + "\n")
    assert f"{file} has changed since the run was trained with its function spread" in fails(capsys, "evaluate", run)
    file.unlink()
    assert f"spread, which the run was trained with, is not in {file}" in fails(capsys, "evaluate", run)
    file.write_text(METRIC)
    assert launch.main(["evaluate", run]) == 0


WORST = """
import jax
import numpy as np
from stepwise_jax import metrics


def hits_by_class(logits, labels):
    right = logits.argmax(axis=1) == labels
    classes = jax.nn.one_hot(labels, logits.shape[1])
    return jax.numpy.stack([right[:, None] * classes, classes], axis=1)


worst_class = metrics.Metric(hits_by_class, lambda sums, examples: float(np.min(sums[0] / sums[1])))
"""


def test_a_score_that_is_no_mean_is_loaded_again(short, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "build_network", lambda *_: TinyNet())
    (tmp_path / "mine.py").write_text(WORST)
    metric, run = load(tmp_path / "mine.py", "worst_class"), tmp_path / "run"
    summary = finish(short, TinyNet(), workdir=run, recipe=sj.Recipe(metrics={"worst_class": metric}))
    stored = read_predictions(run)
    assert stored is not None
    right = stored.predicted == stored.labels
    assert summary["metrics"]["worst_class"] == pytest.approx(
        min(right[stored.labels == label].mean() for label in range(10))
    )
    assert launch.main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == summary["metrics"]


def test_metrics_of_other_bins_are_other_experiments(short, tmp_path):
    def with_bins(bins):
        return with_recipe(short, sj.Recipe(metrics={"ece": sj.metrics.expected_calibration_error(bins)}))

    assert field_differences(with_bins(15), with_bins(15)) == ()
    assert "evaluation.metrics" in field_differences(with_bins(15), with_bins(10))[0]


def test_a_network_whose_file_has_changed_is_named(short, tmp_path, capsys):
    source = (Path(__file__).parents[2] / "examples" / "own_network.py").read_text()
    file, run = tmp_path / "mine.py", str(tmp_path / "run")
    file.write_text(source)
    network = load(file, "OwnNetwork")(num_classes=10)
    finish(short, network, workdir=run)
    file.write_text(source.replace("(16, 32)", "(16, 64)"))
    (tmp_path / "x.png").touch()
    commands = (["evaluate"], ["predict", str(tmp_path / "x.png")], ["export", "--out", str(tmp_path / "x.stablehlo")])
    for words in commands:
        said = fails(capsys, words[0], run, *words[1:])
        assert said == f"error: {file} has changed since the run was trained with its function OwnNetwork\n"


def test_what_is_used_for_training_alone_may_change(short, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "build_network", lambda *_: TinyNet())
    file, run = tmp_path / "mine.py", str(tmp_path / "run")
    file.write_text(
        "def darken(key, images, labels):\n    return images / 2, labels\n\n\n"
        "def keep(state, make_initial_state):\n    return state\n"
    )
    config = override_fields(short, {"data.augmentation": load(file, "darken"), "plan.carry": load(file, "keep")})
    summary = finish(config, TinyNet(), workdir=run)
    file.unlink()
    assert launch.main(["evaluate", run]) == 0
    assert f"top-1 {100 * summary['top1']:.2f} %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizer.name", "adamv"], "--optimizer.name is 'adamv': it must be one of 'sgd', 'nesterov'"),
        (["--optimizer.name", "adamv"], "did you mean adamw?"),
        (["--loss.name", "focall"], "did you mean focal?"),
        (["--plan.carry", "weight"], "did you mean weights?"),
        (["--optimizer.b2", "0.95"], "optimizer.b2 is 0.95: sgd does not take it; it takes momentum, weight_decay"),
        (["--data.augmentation", "flip", "cutmax"], "data.augmentation is 'cutmax': it must be one of flip, crop"),
        (["--data.augmentation", "flip", "cutmax"], "did you mean cutmix?"),
        (["--data.augmentation", "crop:x"], "padding is 'x': it must be a whole number"),
        (["--evaluation.metrics", "calibration"], "did you mean calibration_error?"),
        (["--plan.image_sizes", "16", "16"], "one positive whole number for each of the 5 fractions"),
        (["--plan.image_sizes", "1", "16", "16", "16", "16"], "image_size of stage 1 (A) is 1: "),
        (["--plan.microbatches", "1", "1", "7", "1", "1"], "microbatches of stage 3 (C) is 7"),
        (["--plan.warmup_epochs", "99"], "plan.warmup_epochs is 99: it must be below plan.epochs_per_stage"),
        (["--plan.draw", "redraw"], "did you mean redrawn?"),
    ],
)
@pytest.mark.usefixtures("prepared_digits")
def test_words_that_do_not_fit_get_one_sentence(capsys, tmp_path, words, message):
    assert message in fails(capsys, "train", DIGITS, "--workdir", str(tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()
