"""Whole runs of a tiny network: what they leave behind, and what every choice does to them."""

import dataclasses
import functools
import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import Recorder, TinyNet

import models
from stepwise_jax.errors import InputError, NonFiniteLossError
from stepwise_jax.plans import planning
from stepwise_jax.plans.stage import Stage
from stepwise_jax.training.programs.compilation import CompiledFunctions
from stepwise_jax.workdir import lock, record_file
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.workdir.folder import parse_config, read_config


def test_a_run_leaves_what_the_contract_says(train, tmp_path):
    summary = train(tmp_path / "run")
    folder = tmp_path / "run"
    assert summary == json.loads((folder / "summary.json").read_text())
    assert {"top1", "top5", "best_top1", "samples", "updates", "flops", "seconds", "stages", "state_sha256"} <= set(
        summary
    )
    rows = record_file.read_records(folder)
    assert any(f" on {summary['test_images']} images, " in row["message"] for row in rows.events)
    assert [(row["stage"], row["epoch"]) for row in rows.epochs] == [(s, e) for s in (1, 2, 3) for e in (1, 2)]
    assert [row["batch_size"] for row in rows.epochs] == [32, 32, 64, 64, 32, 32]
    assert [row["examples_seen"] for row in rows.epochs] == [128, 256, 960, 1664, 3072, 4480]
    assert [row["updates"] for row in rows.epochs] == [4, 8, 19, 30, 74, 118]
    rates = [0.05, 0.005, 0.05 / 30, 0.005 / 30, 0.05, 0.005]
    assert [row["learning_rate"] for row in rows.epochs] == pytest.approx(rates)
    assert rows.epochs[1]["noise_scale"] == pytest.approx(0.005 * 144 / 32)
    assert summary["top1"] == rows.epochs[-1]["top1"] > 0.8
    assert summary["best_top1"] == max(row["top1"] for row in rows.epochs)
    assert summary["samples"] == 2 * (144 + 718 + 1437)
    assert summary["updates"] == 118
    assert summary["flops"] > 118 * 32 * 2 * 16 * 9 * 3 * 8
    assert all(value >= 0 for row in rows.epochs for value in row["seconds"].values())


def test_a_stage_begins_before_the_checkpoint_of_its_start_is_written(train, tmp_path, monkeypatch):
    """Orbax's threads keep the interpreter busy just when a stage has its first call to make."""
    done = []

    def noted(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **options: (done.append(name), function(*args, **options))[1])

    noted(Checkpoints, "save")
    noted(CompiledFunctions, "train")
    noted(ocp.CheckpointManager, "save")
    # The manager's own is called the same: what follows at once is what was not left for later.
    train(tmp_path / "run", **{"checkpoint.every_seconds": 1e6})
    text = "".join({"save": "s", "train": "t"}[name] for name in done)
    # Three stages; the last one's checkpoint is waited for at once.
    assert re.fullmatch("t+stst+stst+s+", text), text


def test_predictions_are_of_the_final_state(train, tmp_path):
    summary = train(tmp_path / "run")
    with np.load(tmp_path / "run" / "predictions.npz") as predictions:
        probabilities, labels = predictions["probabilities"], predictions["labels"]
        assert len(set(predictions["ids"].tolist())) == 360
    assert probabilities.shape == (360, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(probabilities.argmax(axis=1) == labels) == summary["top1"]
    in_five = np.argsort(-probabilities, axis=1)[:, :5] == labels[:, None]
    assert in_five.any(axis=1).mean() == pytest.approx(summary["top5"])


def test_config_json_restores_the_experiment(train, tmp_path, experiment):
    train(tmp_path / "run")
    restored, planned = parse_config(read_config(tmp_path / "run"))
    assert restored == dataclasses.replace(experiment, steps_per_call=1)
    assert planned == planning.make_plan(experiment.plan, 1437, experiment.optimizer)


def test_two_runs_of_one_experiment_are_the_same_to_the_bit(train, tmp_path):
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert first["state_sha256"] == second["state_sha256"]
    ours, theirs = (record_file.without_seconds(record_file.read_records(tmp_path / name).epochs) for name in "ab")
    assert ours == theirs
    assert train(tmp_path / "c", seed=1)["state_sha256"] != first["state_sha256"]


def test_each_batch_size_compiles_once_and_no_hyperparameter_compiles(train, tmp_path, compilations):
    train(tmp_path / "short")  # everything small that the process needs once
    before = len(compilations)
    fields = {"plan.fractions": (0.2, 0.4, 0.6, 0.8, 1.0), "plan.batch_multipliers": (1.0, 2.0, 3.0, 4.0, 1.0)}
    display = Recorder()
    train(tmp_path / "plan", display=display, **fields)
    messages = [message.partition(" in ")[0] for message in display.messages if message.startswith("compiled train")]
    assert messages == [f"compiled train for 1 x {size} examples" for size in (32, 64, 96, 128)]
    # Four train steps, one evaluation, one prediction, one initialisation, one pick of images for reports.
    assert len(compilations) - before == 8, "the plan compiled something else than one program for each distinct shape"


def test_several_steps_in_one_call_are_the_same_training(train, tmp_path):
    one, many = train(tmp_path / "one"), train(tmp_path / "many", steps_per_call=3)
    ours, theirs = (record_file.read_records(tmp_path / name).epochs for name in ("one", "many"))
    assert [row["updates"] for row in ours] == [row["updates"] for row in theirs]
    np.testing.assert_allclose([row["train_loss"] for row in ours], [row["train_loss"] for row in theirs], rtol=2e-3)
    assert one["top1"] == pytest.approx(many["top1"], abs=0.02)
    assert json.loads((tmp_path / "many" / "config.json").read_text())["experiment"]["steps_per_call"] == 3


def test_evaluation_does_not_depend_on_its_batch(train, tmp_path):
    results = [train(tmp_path / str(size), **{"evaluation.batch_size": size}) for size in (7, 360, 1000)]
    assert len({(result["top1"], result["top5"], result["state_sha256"]) for result in results}) == 1


def test_evaluation_every_few_epochs_and_at_the_end_of_a_stage(train, tmp_path):
    train(tmp_path / "run", **{"evaluation.every_epochs": 2, "plan.epochs_per_stage": 3})
    assert [row["top1"] is not None for row in record_file.read_records(tmp_path / "run").epochs] == [
        False,
        True,
        True,
    ] * 3


def test_bfloat16_computes_and_keeps_float32_parameters(train, tmp_path):
    summary = train(tmp_path / "run", network=TinyNet(dtype=jax.numpy.bfloat16), dtype="bfloat16")
    assert summary["top1"] > 0.7


@pytest.mark.parametrize("draw", ["tfds", "seeded", "stratified"])
def test_every_draw_trains_on_nested_subsets(train, tmp_path, draw):
    train(tmp_path / "run", **{"data.subset_draw": draw})
    proof = json.loads((tmp_path / "run" / "subsets.json").read_text())
    assert [stage["count"] for stage in proof["stages"]] == [144, 718, 1437]
    assert [sum(stage["class_counts"].values()) for stage in proof["stages"]] == [144, 718, 1437]


@pytest.mark.parametrize("normalisation", ["imagenet", "dataset", "none"])
def test_every_normalisation_trains(train, tmp_path, normalisation):
    assert train(tmp_path / "run", **{"data.normalisation": normalisation})["top1"] > 0.6


def test_choices_at_the_boundary_change_only_what_comes_after_it(train, tmp_path):
    choices = {
        "state": {},
        "weights": {"plan.carry": "weights"},
        "nothing": {"plan.carry": "nothing"},
        "reset": {"plan.batch_statistics": "reset"},
        "reestimated": {"plan.batch_statistics": "reestimated"},
    }
    hashes = {name: train(tmp_path / name, **changes)["state_sha256"] for name, changes in choices.items()}
    assert len(set(hashes.values())) == len(choices)
    first_stages = {
        name: record_file.without_seconds(record_file.read_records(tmp_path / name).epochs)[:2] for name in choices
    }
    assert all(rows == first_stages["state"] for rows in first_stages.values())


def test_without_sharing_each_stage_is_a_run_of_its_own(train, tmp_path):
    """The rows "without weight sharing": the last stage knows nothing of the ones before it."""
    train(tmp_path / "stages", **{"plan.carry": "nothing", "plan.learning_rate_rule": "constant"})
    last = record_file.read_records(tmp_path / "stages").epochs[-1]
    assert last["top1"] is not None
    first_epoch_of_last = record_file.read_records(tmp_path / "stages").epochs[4]
    first_epoch = record_file.read_records(tmp_path / "stages").epochs[0]
    # Starting anew, the larger set's first epoch begins near the untrained loss again.
    train(tmp_path / "shared", **{"plan.learning_rate_rule": "constant"})
    shared = record_file.read_records(tmp_path / "shared").epochs[4]
    assert first_epoch_of_last["train_loss"] > 2 * shared["train_loss"]
    assert first_epoch_of_last["train_loss"] < first_epoch["train_loss"]


def test_a_strategy_of_the_users_own_runs_and_is_recorded(train, tmp_path):
    def two_batches(plan, examples):
        return (
            Stage("small", 1.0, examples, 16, 0.01, epochs=1, weight_decay=0.0),
            Stage("large", 1.0, examples, 128, 0.01, epochs=1, momentum=0.0),
        )

    train(tmp_path / "run", **{"plan.strategy": two_batches})
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    assert document["strategy"]["name"] == "two_batches"
    assert document["strategy"]["module"] == two_batches.__module__
    assert len(document["strategy"]["file_sha256"]) == 64
    assert [stage["batch_size"] for stage in document["stages"]] == [16, 128]
    assert [row["stage_name"] for row in record_file.read_records(tmp_path / "run").epochs] == ["small", "large"]
    restored, planned = parse_config(document)
    assert callable(restored.plan.strategy)
    assert planned[1].momentum == 0.0


def test_a_finished_run_is_left_as_it_is(train, tmp_path):
    first = train(tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    display = Recorder()
    assert train(tmp_path / "run", display=display) == first
    assert (tmp_path / "run" / "summary.json").read_bytes() == before
    assert "this run is finished: nothing to do" in display.messages


def test_another_experiment_in_the_workdir_is_refused_with_the_fields_named(train, tmp_path):
    train(tmp_path / "run")
    with pytest.raises(InputError, match=r"plan\.batch_size: 16 instead of 32; seed: 5 instead of 0"):
        train(tmp_path / "run", seed=5, **{"plan.batch_size": 16})


def test_what_does_not_decide_the_result_may_change_on_resume(train, tmp_path):
    train(tmp_path / "run")
    train(tmp_path / "run", **{"checkpoint.every_seconds": 5.0, "evaluation.batch_size": 77})


def test_data_that_changed_is_refused_on_resume(train, tmp_path):
    train(tmp_path / "run")
    path = tmp_path / "run" / "subsets.json"
    (tmp_path / "run" / "summary.json").unlink()
    path.write_text(path.read_text().replace("digits_", "other_").replace('"count": 144', '"count": 143'))
    with pytest.raises(InputError, match="the data has changed"):
        train(tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(train, tmp_path):
    with pytest.raises(
        NonFiniteLossError, match=r"the loss is (nan|inf) at update \d+ \(stage 1 A?.*learning rate 1e\+30"
    ):
        train(tmp_path / "run", **{"plan.learning_rate": 1e30})


def test_a_folder_with_other_things_in_it_is_refused(train, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not empty and holds no run"):
        train(tmp_path)


def test_two_processes_in_one_workdir_are_refused(train, tmp_path):
    with lock.exclusive_lock(tmp_path / "run"), pytest.raises(InputError, match="is in use: another process"):
        train(tmp_path / "run")


def test_a_workdir_that_no_checkpoint_can_be_written_to_is_refused(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").touch()
    with pytest.raises(InputError, match=r"checkpoints must be a folder"), lock.exclusive_lock(tmp_path / "run"):
        pass
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    with pytest.raises(InputError, match=r"--workdir .*udcff' must be UTF-8"):
        train(folder)
    assert not folder.exists()


def test_a_batch_of_one_image_is_refused_where_the_network_leaves_one_value_a_channel(train, tmp_path):
    network = models.build("resnet_small", num_classes=10, small_images=True, width=4)
    changes = {"data.train_examples": 40, "plan.batch_size": 1, "plan.fractions": (1,), "plan.batch_multipliers": (1,)}
    with pytest.raises(InputError, match=r"batch_size of stage 1 \(O\) is 1: images: a batch whose maps shrink to"):
        train(tmp_path / "refused", network, **changes)
    assert train(tmp_path / "run", **changes)["updates"] == 80


def test_a_run_whose_records_are_damaged_is_refused_before_it_trains(train, tmp_path):
    train(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    path = tmp_path / "run" / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"epoch": 1,' not in line))
    with pytest.raises(InputError, match=r"lacks epoch 1 of stage 1, which the checkpoint includes"):
        train(tmp_path / "run")


def test_a_strategy_that_is_no_plain_function_resumes_too(train, tmp_path):
    def scaled(factor, plan, examples):
        return (Stage("O", 1.0, examples, 64, factor * plan.learning_rate, epochs=1),)

    strategy = functools.partial(scaled, 0.5)
    first = train(tmp_path / "run", **{"plan.strategy": strategy})
    assert train(tmp_path / "run", **{"plan.strategy": strategy}) == first
    restored, planned = parse_config(read_config(tmp_path / "run"))
    assert planning.make_plan(restored.plan, 1437, restored.optimizer) == planned


def test_checkpoints_bind_a_run_whose_subsets_json_is_gone(train, tmp_path):
    train(tmp_path / "run")
    (tmp_path / "run" / "subsets.json").unlink()
    with pytest.raises(InputError, match="seed: 5 instead of 0"):
        train(tmp_path / "run", seed=5)
