"""Gradient noise measured in runs: of the right examples, the same after a resume, and without a trace in training."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TinyNet

from stepwise_jax.data import datasets
from stepwise_jax.data.batches import gather_batch
from stepwise_jax.data.sampler import epoch_order, independent_batches
from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.gradient_noise import GradientGroup, estimate_noise
from stepwise_jax.functional.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from stepwise_jax.functional.state import digest
from stepwise_jax.functional.train_step import Batch, make_gradient
from stepwise_jax.plans import planning
from stepwise_jax.plans.stage import Stage
from stepwise_jax.training import loop
from stepwise_jax.training.measurements.noise import count_microbatches, measure_noise
from stepwise_jax.training.session import open_session
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.record_file import without_seconds
from stepwise_jax.workdir.records import NoiseRecord, Record
from tests.digits_run import config

PLACES = [(1, "end"), (2, "start"), (2, "end")]


def experiment_of(data_dir: Path, measure: str = "noise", **fields: Any) -> ExperimentConfig:
    plain = config(data_dir)
    data = dataclasses.replace(plain.data, image_size=8, normalisation="imagenet")
    plan = dataclasses.replace(plain.plan, epochs_per_stage=2, learning_rate=0.05)
    return dataclasses.replace(plain, data=data, plan=plan, measure=measure, **fields)


def train(experiment: ExperimentConfig, folder: Path, *observers: Any) -> dict[str, Any]:
    planned = planning.make_plan(experiment.plan, datasets.sizes(experiment.data).train, experiment.optimizer)
    return loop.run(experiment, planned, TinyNet(), folder, observers=observers)


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory) -> dict[str, Path]:
    """The same run without and with measuring."""
    folder = tmp_path_factory.mktemp("runs")
    for measure in ("none", "noise"):
        train(experiment_of(data_dir, measure), folder / measure)
    return {measure: folder / measure for measure in ("none", "noise")}


def noise_rows(run: Path) -> tuple[dict[str, Any], ...]:
    return without_seconds(record_file.read_records(run).noise)


def test_measuring_leaves_no_trace_in_training(runs):
    plain, measured = (json.loads((runs[name] / "summary.json").read_text()) for name in ("none", "noise"))
    assert plain["state_sha256"] == measured["state_sha256"]
    assert (plain["metrics"], plain["samples"]) == (measured["metrics"], measured["samples"])
    epochs = [without_seconds(record_file.read_records(run).epochs) for run in runs.values()]
    assert epochs[0] == epochs[1]


def test_each_stage_end_and_both_sides_of_each_boundary_are_measured(runs):
    assert noise_rows(runs["none"]) == ()
    rows = noise_rows(runs["noise"])
    assert [(row["stage"], row["side"]) for row in rows[::2]] == PLACES
    assert [row["statistics"] for row in rows] == ["batch", "frozen"] * 3
    for row, (examples, rate) in zip(rows[::2], [(287, 0.005), (1437, 0.05), (1437, 0.005)], strict=True):
        assert (row["microbatches"], row["microbatch_size"]) == (16, 32)
        assert row["learning_rate"] == pytest.approx(rate)
        assert row["noise_scale"] == pytest.approx(rate * examples / 32)
        assert row["step_noise"] == pytest.approx(rate * row["trace"] / 32)
        assert row["rate_over_batch"] == pytest.approx(rate / 32)
        assert row["trace_interval"][0] < row["trace"] < row["trace_interval"][1]


@pytest.mark.parametrize("statistics", ["frozen", "batch"])
def test_a_measurement_is_that_of_its_microbatches_one_by_one(data_dir, tmp_path, statistics):
    experiment = dataclasses.replace(experiment_of(data_dir), steps_per_call=1)
    planned = planning.make_plan(experiment.plan, 1437, experiment.optimizer)
    rows = []
    with open_session(experiment, planned, TinyNet(), None, tmp_path, [rows.append]) as session:
        state = session.make_initial_state()
        before = digest(state)
        measure_noise(session, state, 2, "start")
        assert digest(state) == before
        drawn = independent_batches(0, 2, 0, session.subsets[1].rows, 16, 32)
        gradient, groups = jax.jit(make_gradient(TinyNet(), statistics=statistics)), []
        for batch in drawn:
            images = gather_batch(session.train_loader.examples, batch, Preprocessing(8, IMAGENET_MEAN, IMAGENET_STD))  # pyright: ignore
            total = jax.device_get(gradient(state, Batch(*images))[2])
            squares = sum(float((np.asarray(leaf, np.float64) ** 2).sum()) for leaf in jax.tree.leaves(total))
            groups.append(GradientGroup(total, squares, 1))
    (row,) = [each for each in rows if each.kind == "noise" and each.statistics == statistics]
    expected = estimate_noise(groups, 32)
    assert (row.trace, *row.trace_interval) == pytest.approx(expected.trace, rel=1e-4)
    assert (row.squared_norm, *row.squared_norm_interval) == pytest.approx(expected.squared_norm, rel=1e-3)


class StopAt:
    """Sends this process a signal when a measurement is on record."""

    def __init__(self, *place: Any):
        self._place = place

    def __call__(self, record: Record) -> None:
        if isinstance(record, NoiseRecord) and (record.stage, record.side, record.statistics) == self._place:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("place", [(1, "end", "batch"), (2, "start", "batch"), (2, "end", "frozen")])
def test_a_run_that_stops_while_it_measures_ends_with_the_same_rows(data_dir, tmp_path, runs, place):
    with pytest.raises(InterruptedRunError):
        train(experiment_of(data_dir), tmp_path / "run", StopAt(*place))
    assert len(noise_rows(tmp_path / "run")) < 6 or place[:2] == PLACES[-1]
    summary = train(experiment_of(data_dir), tmp_path / "run")
    assert summary["state_sha256"] == json.loads((runs["noise"] / "summary.json").read_text())["state_sha256"]
    assert noise_rows(tmp_path / "run") == noise_rows(runs["noise"])


def test_a_run_killed_after_it_measured_measures_the_same_again(data_dir, tmp_path, runs):
    run = shutil.copytree(runs["noise"], tmp_path / "run")
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / str(2 * (287 // 32) + 2 * (1437 // 32)))
    train(experiment_of(data_dir), run)
    lines = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["side"]) for row in lines if row["kind"] == "noise"][6::2] == PLACES[1:]
    assert noise_rows(run) == noise_rows(runs["noise"])


def test_a_streamed_run_measures_what_a_resident_one_does(data_dir, tmp_path, runs):
    experiment = experiment_of(data_dir)
    streamed = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, delivery="streamed"))
    train(streamed, tmp_path / "run")
    for ours, theirs in zip(noise_rows(tmp_path / "run"), noise_rows(runs["noise"]), strict=True):
        assert ours["trace"] == pytest.approx(theirs["trace"], rel=1e-4)


def test_the_share_of_the_samples_decides_how_many_microbatches():
    stages = (Stage("A", 0.5, 5_000, 20, 0.1, 10), Stage("O", 1.0, 10_000, 50, 0.1, 10))
    counts = [count_microbatches(stages, stage, 0.03) for stage in stages]
    # 3 % of 150,000 samples, for three places of two measurements: 750 each.
    assert counts == [32, 16]
    assert [count_microbatches(stages, stage, 0.3) for stage in stages] == [368, 144]
    assert count_microbatches(stages, stages[1], 1e-9) == 16


def test_draws_depend_on_the_seed_the_stage_and_the_side():
    rows = np.arange(100, 400)
    drawn = independent_batches(0, 1, 0, rows, 50, 40)
    assert (drawn.shape, drawn.dtype) == ((50, 40), np.int32)
    assert set(drawn.ravel().tolist()) <= set(rows.tolist())
    np.testing.assert_array_equal(drawn, independent_batches(0, 1, 0, rows, 50, 40))
    others = [(1, 1, 0), (0, 2, 0), (0, 1, 1)]
    assert all((drawn != independent_batches(*other, rows, 50, 40)).any() for other in others)
    assert len(np.unique(drawn)) == pytest.approx(300 * (1 - np.exp(-2000 / 300)), abs=5)
    # Not the order of an epoch, which the same generator makes.
    assert (drawn[:7] != epoch_order(0, 1, 0, rows, 40)).any()
