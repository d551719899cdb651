"""The data of a run: opened on every process, and drawn into the subsets of its stages, which the workdir records."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from stepwise_jax.data import datasets, subsets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.loaders import Loader
from stepwise_jax.data.placement import Split, open_data, open_split
from stepwise_jax.data.sampler import PlanSampler
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.preprocessing import Preprocessing, make_preprocessing
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.files import wait_for_file
from stepwise_jax.training.progress import RunLog
from stepwise_jax.workdir.files import CHECKPOINTS, SUBSETS
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.signature import Signature, write_signature


class DataFields(NamedTuple):
    """The fields of a `Session` that come from the data."""

    subsets: tuple[subsets.Subset, ...]
    sampler: PlanSampler
    train_loader: Loader
    test_loader: Loader
    test_labels: np.ndarray
    test_ids: tuple[str, ...]
    classes: tuple[str, ...]


@contextmanager
def open_run_data(
    experiment: ExperimentConfig, stages: tuple[Stage, ...], mesh: Mesh, folder: Path, log: RunLog
) -> Iterator[tuple[DataFields, Preprocessing]]:
    """Open the data set, draw its subsets, and record both the subsets and the preprocessing in the workdir.

    Then every process sees the workdir as the first one does.
    """
    config = experiment.data
    dataset, placement = open_data(config, mesh, log.show_preparation)
    log.event("delivery", placement.reason)
    with ExitStack() as stack:

        def open_splits() -> tuple[Split, Split]:
            _report_shared_images(experiment, dataset, log)
            train = open_split(config, dataset, "train", placement, mesh, log.show_preparation)
            stack.callback(train.loader.close)
            _check_size(experiment, stages, len(train.labels))
            return train, open_split(config, dataset, "test", placement, mesh, log.show_preparation)

        train, test = multihost.on_all_processes(open_splits)
        drawn = _draw_subsets(experiment, stages, train, test, dataset, folder)
        preprocessing = make_preprocessing(config.normalisation, config.image_size, train.histograms)
        shape = datasets.image_shape(dataset, config.image_size)
        ours = Signature(preprocessing, shape, dataset.class_names, config.name)
        multihost.broadcast_from_first(partial(write_signature, folder, ours))
        _wait_for_checkpoints(folder)
        sampler = PlanSampler(experiment.stream_seed("order"), stages, [subset.rows for subset in drawn])
        classes = dataset.class_names
        yield DataFields(drawn, sampler, train.loader, test.loader, test.labels, test.ids, classes), preprocessing


def _report_shared_images(experiment: ExperimentConfig, dataset: Dataset, log: RunLog) -> None:
    shared, scored = datasets.shared_images(experiment.data, dataset)
    if shared:
        kind = "held-out" if experiment.data.validation_fraction else "test"
        log.event("duplicates", f"{shared:,} of {scored:,} {kind} images are also in training")


def _check_size(experiment: ExperimentConfig, stages: tuple[Stage, ...], examples: int) -> None:
    largest = max(stage.examples for stage in stages)
    if largest > examples:
        raise InputError(
            f"the plan needs {largest} training examples and data.name {experiment.data.name!r} has {examples}"
        )


def _draw_subsets(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    train: Split,
    test: Split,
    dataset: Dataset,
    folder: Path,
) -> tuple[subsets.Subset, ...]:
    """Draw the stages' subsets and record them in `subsets.json`; a resumed run must draw the recorded ones.

    Raises:
      InputError: if the data differs among the processes, or has changed since the run started.
    """

    def draw() -> tuple[tuple[subsets.Subset, ...], dict[str, Any]]:
        drawn = _drawn(experiment, stages, train, dataset)
        scored, _ = datasets.used_rows(experiment.data, dataset, "test")
        hashes = {"train": datasets.split_hashes(dataset, "train"), "test": datasets.split_hashes(dataset, scored)}
        names = [stage.name for stage in stages]
        return drawn, subsets.manifest(drawn, names, dataset, train.ids, test.ids, hashes)

    drawn, manifest = multihost.on_all_processes(draw)
    multihost.check_same_on_all_processes(_describe_data(manifest))
    multihost.on_first_then_others(partial(_record_subsets, experiment, folder, manifest))
    return drawn


def _drawn(
    experiment: ExperimentConfig, stages: tuple[Stage, ...], train: Split, dataset: Dataset
) -> tuple[subsets.Subset, ...]:
    seed = experiment.stream_seed("subset")
    draw = partial(subsets.draw, experiment.data.subset_draw, seed, train.labels, train.ids)
    drawn = draw([stage.examples for stage in stages], dataset.builder)
    if any(stage.draw == "redrawn" for stage in stages):
        (whole,) = draw([len(train.labels)], dataset.builder)
        drawn = tuple(whole if stage.draw == "redrawn" else subset for stage, subset in zip(stages, drawn, strict=True))
    return drawn


_WORDS = {
    "count": "the number",
    "sha256": "the SHA-256 of the ids",
    "content_sha256": "the SHA-256 of the images",
    "labels_sha256": "the SHA-256 of the labels",
}


def _describe_data(manifest: dict[str, Any]) -> dict[str, Any]:
    """What identifies the data, by names for a message: each host may have a copy of its own."""
    splits = {
        f"{_WORDS[key]} of the {split} examples": each
        for split in ("train", "test")
        for key, each in manifest[split].items()
    }
    drawn = {f"the subset of stage {number}": each["sha256"] for number, each in enumerate(manifest["stages"], start=1)}
    return {"the version of the data set": manifest["version"], **splits, **drawn}


def _record_subsets(experiment: ExperimentConfig, folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / SUBSETS
    if not multihost.is_first_process():
        _wait_for(path, folder)
    if not path.exists():
        write_json(path, manifest)
    elif not subsets.agrees(read_json(path), manifest):
        raise InputError(f"{path} does not record the examples of {experiment.data.name}: the data has changed")


def _wait_for(path: Path, folder: Path) -> None:
    """Wait for what the first process has written: a network file system shows it to other hosts some time later."""
    if not wait_for_file(path):
        raise InputError(
            f"--workdir {folder} is not the first process's: it must be on a file system that all processes share"
        )


def _wait_for_checkpoints(folder: Path) -> None:
    """Wait until every process sees the checkpoints that the first one sees, so that none restores another."""
    if jax.process_count() == 1:
        return
    checkpoints = folder / CHECKPOINTS

    def list_steps() -> list[str]:
        checkpoints.mkdir(exist_ok=True)
        return [name for name in os.listdir(checkpoints) if name.isdigit()]

    def wait(steps: list[str]) -> None:
        for path in (checkpoints, *(checkpoints / step for step in steps)):
            _wait_for(path, folder)

    multihost.on_all_processes(partial(wait, multihost.broadcast_from_first(list_steps)))
