"""What a stage may set beside the paper's fields: hyperparameters, image size, microbatches, draw and warm-up."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import stepwise_jax as sj
from stepwise_jax.data.sampler import PlanSampler
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.functional.state import state_from_variables
from stepwise_jax.functional.train_step import Batch, make_train_step
from stepwise_jax.plans.stage import learning_rate_at
from stepwise_jax.training.train import train
from stepwise_jax.workdir.folder import read_experiment
from tests.digits_run import config


class PlainNet(nn.Module):
    """A network without batch norm, for images of any size."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(self.num_classes)(nn.relu(nn.Conv(4, (3, 3), strides=2)(images)).mean(axis=(1, 2)))


def staged(**fields: Any):
    """A strategy of two stages, the second with other fields."""

    def strategy(plan: sj.PlanConfig, examples: int) -> tuple[sj.Stage, ...]:
        first = sj.Stage("A", 0.5, examples // 2, 32, 0.05, 1)
        return first, dataclasses.replace(first, **({"name": "O", "fraction": 1.0, "examples": examples} | fields))

    return strategy


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> sj.ExperimentConfig:
    return config(tmp_path_factory.mktemp("prepared"))


def run(experiment, workdir, network=None, **fields):
    plan = dataclasses.replace(experiment.plan, strategy=staged(**fields))
    records: list[Any] = list(train(dataclasses.replace(experiment, plan=plan), network or PlainNet(), workdir=workdir))
    return json.loads((workdir / "summary.json").read_text()), records


def test_other_hyperparameters_change_the_result_but_compile_nothing_more(experiment, tmp_path):
    plain, before = run(experiment, tmp_path / "plain")
    same, _ = run(experiment, tmp_path / "same", hyperparameters={"momentum": 0.9, "weight_decay": 1e-4})
    other, after = run(experiment, tmp_path / "other", hyperparameters={"momentum": 0.5, "weight_decay": 0.01})
    assert plain["state_sha256"] == same["state_sha256"] != other["state_sha256"]
    compiled = [
        sum("compiled train" in getattr(each, "message", "") for each in records) for records in (before, after)
    ]
    assert compiled[0] == compiled[1] > 0


def test_a_stage_of_another_image_size_is_another_program(experiment, tmp_path):
    summary, records = run(experiment, tmp_path / "run", image_size=12)
    messages = [each.message for each in records if each.kind == "event" and each.name == "compile"]
    assert any("of 12 pixels" in message for message in messages)
    assert 0 < summary["flops"] < run(experiment, tmp_path / "plain")[0]["flops"]


def test_gradients_of_microbatches_are_those_of_the_batch():
    random = np.random.default_rng(0)
    batch = Batch(jnp.asarray(random.normal(size=(12, 8, 8, 3)), jnp.float32), jnp.asarray(random.integers(0, 10, 12)))
    optimizer = make_optimizer(sj.OptimizerConfig())
    state = state_from_variables(PlainNet().init(jax.random.key(0), batch.images, train=False), optimizer)
    state = state._replace(opt_state=set_hyperparameters(state.opt_state, learning_rate=0.5))
    whole, metrics = make_train_step(PlainNet(), optimizer)(state, batch)
    for parts in (2, 3, 12):
        split, split_metrics = jax.jit(make_train_step(PlainNet(), optimizer, microbatches=parts))(state, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), split.params, whole.params)
        assert float(split_metrics["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)


def test_microbatches_train_a_run(experiment, tmp_path):
    plain, split = (run(experiment, tmp_path / str(parts), microbatches=parts)[0] for parts in (1, 4))
    assert split["metrics"]["loss"] == pytest.approx(plain["metrics"]["loss"], rel=1e-3)


def test_a_redrawn_stage_sees_other_examples_of_the_whole_set_in_each_epoch():
    stage = sj.Stage("A", 0.25, 20, 5, 0.1, 3, draw="redrawn")
    sampler = PlanSampler(0, [stage], [np.arange(80)])
    epochs = [{int(row) for update in range(4 * epoch, 4 * epoch + 4) for row in sampler[update]} for epoch in range(3)]
    assert [len(each) for each in epochs] == [20, 20, 20]
    assert epochs[0] != epochs[1] != epochs[2]
    assert max(map(max, epochs)) > 20
    nested = PlanSampler(0, [dataclasses.replace(stage, draw="nested")], [np.arange(20)])
    assert {int(row) for update in range(12) for row in nested[update]} == set(range(20))


def test_the_record_of_a_redrawn_stage_names_the_whole_set(experiment, tmp_path):
    _, records = run(experiment, tmp_path / "run", draw="redrawn", examples=800)
    stages = [each for each in records if each.kind == "stage"]
    assert [each.split for each in stages] == ["train[:718]", "train[:1437]"]


def test_a_schedule_of_the_table_trains_on_subsets_that_shrink(experiment, tmp_path):
    fields = {"fractions": (1.0,), "batch_multipliers": (1.0,), "epochs_per_stage": 3, "warmup_epochs": 0}
    plan = dataclasses.replace(experiment.plan, **fields, strategy="falling:0.5:stages=3", milestones=None)
    falling = dataclasses.replace(experiment, plan=plan)
    records: list[Any] = list(train(falling, PlainNet(), workdir=tmp_path / "run"))
    stages = [each for each in records if each.kind == "stage"]
    assert [each.split for each in stages] == ["train[:1437]", "train[:719]", "train[:1437]"]
    assert stages[0].sha256 == stages[2].sha256
    recorded = read_experiment(tmp_path / "run")
    assert recorded is not None
    assert recorded.plan.strategy == "falling:0.5:stages=3"
    # The recorded run is the same experiment: nothing is trained again.
    assert "epoch" not in {each.kind for each in train(falling, PlainNet(), workdir=tmp_path / "run")}


def test_the_rate_rises_by_epochs_to_its_full_value():
    stage = sj.Stage("A", 1.0, 10, 2, 0.4, 6, milestones=(4,), warmup_epochs=3)
    assert [learning_rate_at(stage, epoch) for epoch in range(1, 7)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.04, 0.04])


def test_the_fields_of_a_plan_reach_its_stages():
    plan = sj.PlanConfig(
        image_sizes=(8, 8, 12, 16, 16), microbatches=(1, 1, 1, 2, 1), draw="redrawn", warmup_epochs=2, batch_size=8
    )
    stages = sj.make_plan(plan, 1000)
    assert [stage.image_size for stage in stages] == [8, 8, 12, 16, 16]
    assert [stage.microbatches for stage in stages] == [1, 1, 1, 2, 1]
    assert {(stage.draw, stage.warmup_epochs) for stage in stages} == {("redrawn", 2)}


def test_the_baseline_has_the_options_of_the_last_stage():
    fields = {"image_sizes": (8, 16), "microbatches": (1, 4), "draw": "redrawn", "warmup_epochs": 2, "batch_size": 8}
    plan = sj.PlanConfig(strategy="baseline", fractions=(0.5, 1.0), batch_multipliers=(1, 2), **fields)
    (stage,) = sj.make_plan(plan, 1000)
    assert (stage.image_size, stage.microbatches, stage.draw, stage.warmup_epochs) == (16, 4, "redrawn", 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"microbatches": 5}, r"microbatches of stage 2 \(O\) is 5: it must be a divisor of batch_size, which is 32"),
        ({"image_size": 0}, r"image_size of stage 2 \(O\) is 0"),
        ({"warmup_epochs": 1}, r"warmup_epochs of stage 2 \(O\) is 1: it must be from 0 to 0"),
        ({"draw": "random"}, r"draw of stage 2 \(O\) is 'random': it must be one of 'nested', 'redrawn'"),
        ({"hyperparameters": {"momentum": float("nan")}}, r"hyperparameters of stage 2 \(O\)"),
        (
            {"hyperparameters": {"beta": 0.5}},
            r"hyperparameters of stage 2 \(O\) sets 'beta', which the optimizer sgd does",
        ),
    ],
)
def test_a_stage_that_cannot_be_trained_is_refused(experiment, tmp_path, fields, message):
    with pytest.raises(sj.InputError, match=message):
        run(experiment, tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()
