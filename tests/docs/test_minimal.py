"""The method in one file, held against the package's own run of the same plan."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import stepwise_jax as sj
from stepwise_jax.data import datasets
from stepwise_jax.inference.trained import open_trained
from stepwise_jax.plans.stage import learning_rate_at

EXAMPLE = Path(__file__).parents[2] / "examples" / "stepwise_minimal.py"
SEED, SIZE, WIDTH, BATCH, RATE = 3, 12, 4, 16, 0.05


@pytest.fixture(scope="module")
def minimal():
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


@pytest.fixture(scope="module")
def config(data_dir):
    """The paper's plan with two epochs in place of twenty, on subsets that the seed alone decides."""
    return sj.ExperimentConfig(
        data=sj.DataConfig(name="digits", data_dir=str(data_dir), image_size=SIZE, subset_draw="seeded"),
        plan=sj.PlanConfig(batch_size=BATCH, learning_rate=RATE, epochs_per_stage=2, decay_every=1),
        seed=SEED,
    )


@pytest.fixture(scope="module")
def data(minimal, config):
    """The package's images, in its order."""
    opened = datasets.open_dataset(config.data)
    train, test = (datasets.load(opened, split, SIZE, lambda *_: None) for split in ("train", "test"))
    return minimal.Data(train.images, train.labels, test.images, test.labels)


def test_its_plan_is_the_packages(minimal, config, data):
    planned = sj.make_plan(config.plan, len(data.train_labels))
    plan = minimal.stepwise_plan(len(data.train_labels), BATCH, RATE, epochs=2, decay_every=1)
    for stage, its in zip(plan, planned, strict=True):
        assert (stage.name, stage.examples, stage.batch_size) == (its.name, its.examples, its.batch_size)
        assert (stage.rate, stage.noise_scale) == pytest.approx((its.learning_rate, its.noise_scale))
        rates = [minimal.rate_in_epoch(stage, epoch) for epoch in (1, 2)]
        assert rates == pytest.approx([learning_rate_at(its, epoch) for epoch in (1, 2)])


def test_it_computes_the_packages_parameters(minimal, config, data, tmp_path):
    network = minimal.SmallResNet(width=WIDTH)
    records = [record for record in sj.train(config, network, workdir=tmp_path) if record.kind == "epoch"]
    theirs = open_trained(tmp_path, network).variables
    plan = minimal.stepwise_plan(len(data.train_labels), BATCH, RATE, epochs=2, decay_every=1)
    states, rows = zip(*minimal.train(data, plan, network, SEED, SIZE), strict=True)
    for row, record in zip(rows, records, strict=True):
        assert (row["stage"], row["samples"]) == (record.stage_name, record.examples_seen)
        assert row["train_loss"] == pytest.approx(record.train_loss, rel=1e-4)
        assert {name: row[name] for name in record.metrics} == pytest.approx(record.metrics, rel=1e-3)
    ours = {"params": states[-1].params, "batch_stats": states[-1].batch_stats}
    jax.tree.map(lambda mine, its: np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-5), ours, theirs)


def test_it_prints_a_row_for_each_stage(minimal, capsys):
    minimal.main(epochs=2, size=SIZE, width=WIDTH)
    _, *rows, _ = capsys.readouterr().out.splitlines()
    assert [row[11] for row in rows] == list("ABCDOO")
    assert all(re.search(r"\d+\.\d\d% +\d+\.\d\d%$", row) for row in rows)
