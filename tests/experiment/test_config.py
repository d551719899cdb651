import dataclasses
import json

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    PlanConfig,
)
from stepwise_jax.experiment.serialization import (
    experiment_from_dict,
    experiment_to_dict,
    field_differences,
    field_type,
    flatten_fields,
    override_fields,
)

CONTRACT = """
seed dtype data.name data.root data.data_dir data.image_size data.subset_draw model.name model.small_images
model.initial_weights plan.strategy plan.fractions plan.batch_size plan.batch_multipliers plan.learning_rate
plan.learning_rate_rule plan.epochs_per_stage plan.decay_every plan.decay_factor plan.carry optimizer.momentum
optimizer.weight_decay evaluation.batch_size checkpoint.every_seconds
"""


def test_fields_that_scripts_use_exist():
    assert set(CONTRACT.split()) <= set(flatten_fields(ExperimentConfig()))


def test_defaults_are_the_papers():
    config = flatten_fields(ExperimentConfig())
    assert config["plan.fractions"] == (0.2, 0.4, 0.6, 0.8, 1.0)
    assert config["plan.batch_multipliers"] == (1, 2, 3, 4, 1)
    assert (config["plan.batch_size"], config["plan.learning_rate"], config["plan.decay_factor"]) == (24, 0.001, 0.1)
    assert (config["plan.epochs_per_stage"], config["plan.decay_every"]) == (20, 10)
    assert (config["plan.baseline_epochs"], config["plan.baseline_decay_every"]) == (100, 30)
    assert (config["optimizer.momentum"], config["optimizer.weight_decay"]) == (0.9, 1e-4)
    assert (config["data.image_size"], config["plan.learning_rate_rule"], config["plan.carry"]) == (224, "eq9", "state")


def test_json_restores_the_exact_experiment():
    config = ExperimentConfig(
        data=DataConfig(name="image_folder", root="/photos", image_size=64, subset_draw="stratified"),
        model=ModelConfig(name="resnet18", blocks=(1, 1, 1, 1), width=8),
        plan=PlanConfig(fractions=(0.1, 1.0), batch_multipliers=(1, 2), milestones=(3, 7), learning_rate=0.1 + 0.2),
        optimizer=OptimizerConfig(momentum=0.5, decay_on="kernels"),
        evaluation=EvaluationConfig(every_epochs=3),
        checkpoint=CheckpointConfig(every_seconds=7.5),
        seed=9,
        dtype="bfloat16",
    )
    assert experiment_from_dict(json.loads(json.dumps(experiment_to_dict(config)))) == config


def test_a_dictionary_with_an_unknown_field_is_rejected():
    document = experiment_to_dict(ExperimentConfig())
    document["plan"]["batchsize"] = 3
    with pytest.raises(InputError, match="batchsize"):
        experiment_from_dict(document)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("plan.batch_size", "24", "must be a whole number"),
        ("plan.batch_size", True, "must be a whole number"),
        ("plan.batch_size", 0, "at least 1"),
        ("plan.fractions", (0.4, 0.2, 1.0), "above the one before"),
        ("plan.fractions", (0.2, 0.4), "end with 1"),
        ("plan.fractions", (), "above the one before"),
        ("plan.fractions", "0.2", "a tuple of numbers"),
        ("plan.batch_multipliers", (1.0,), "each of the 5 fractions"),
        ("plan.learning_rate", float("nan"), "a positive number"),
        ("plan.learning_rate", float("inf"), "a positive number"),
        ("plan.decay_factor", 0.0, "above 0"),
        ("plan.milestones", (4, 3), "each above the one before"),
        ("plan.carry", "momentum", "'state', 'weights', 'nothing'"),
        ("plan.strategy", 5, "a string or a function"),
        ("data.test_fraction", 1.0, "between 0 and 1"),
        ("plan.epochs_per_stage", 10**20, "at most 1000000"),
        ("plan.batch_size", 10**20, "at most 1000000000"),
        ("data.image_size", 0, "from 1 to 8192 pixels"),
        ("data.image_size", 100_000, "from 1 to 8192 pixels"),
        ("data.image_size", 2.5, "must be a whole number"),
        ("model.blocks", (), "one to four positive numbers"),
        ("model.blocks", (1, 2, 3, 4, 5), "one to four positive numbers"),
        ("model.blocks", (1, 0), "one to four positive numbers"),
        ("model.blocks", (1, 3000), "of at most 1000"),
        ("optimizer.momentum", 1.0, "below 1"),
        ("optimizer.weight_decay", -0.1, "not negative"),
        ("evaluation.batch_size", -1, "at least 1, or 0 to choose by device"),
        ("checkpoint.keep", 1, "at least 2"),
        ("checkpoint.every_seconds", float("inf"), "a finite number"),
        ("checkpoint.every_seconds", 10**400, "a finite number"),
        ("optimizer.weight_decay", 10**400, "a finite number"),
        ("model.width", 10**400, "a finite number"),
        ("data.root", "gs://bucket/images", "a folder on this machine, not a URL"),
        ("data.data_dir", "s3://bucket", "a folder on this machine, not a URL"),
        ("model.initial_weights", "file:///weights.pth", "a file on this machine, not a URL"),
        ("seed", -1, "between 0"),
        ("dtype", "float16", "'bfloat16'"),
        ("steps_per_call", -1, "at least 1"),
        ("deterministic", 1, "True or False"),
    ],
)
def test_an_invalid_value_is_reported_with_its_field_and_what_is_valid(name, value, message):
    with pytest.raises(InputError, match=name) as caught:
        override_fields(ExperimentConfig(), {name: value})
    assert message in str(caught.value)
    assert repr(value) in str(caught.value)


def test_batch_statistics_other_than_carried_need_a_carry():
    with pytest.raises(InputError, match=r"plan\.batch_statistics"):
        PlanConfig(carry="nothing", batch_statistics="reset")


def test_override_replaces_only_the_named_fields():
    changed = override_fields(ExperimentConfig(), {"plan.batch_size": 16, "seed": 3})
    assert changed == dataclasses.replace(ExperimentConfig(), seed=3, plan=PlanConfig(batch_size=16))
    assert field_differences(changed, ExperimentConfig()) == (
        "plan.batch_size: 16 instead of 24",
        "seed: 3 instead of 0",
    )


def test_an_unknown_field_cannot_be_overridden():
    with pytest.raises(InputError, match="not a field"):
        override_fields(ExperimentConfig(), {"plan.batchsize": 16})


NUMBERS = [name for name, value in flatten_fields(ExperimentConfig()).items() if "float" in str(field_type(name))]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_accepted_that_json_cannot_record(name, value):
    """Every field of floats, alone and in a tuple."""
    present = flatten_fields(ExperimentConfig())[name]
    changed = (*present[:-1], value) if isinstance(present, tuple) else value
    with pytest.raises(InputError, match=name):
        override_fields(ExperimentConfig(), {name: changed})
