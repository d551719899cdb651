"""The start of a run: a new one, or where the one in the workdir stopped; all its processes start the same run."""

import dataclasses
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import comparable_fields, flat_experiment, model_name
from stepwise_jax.functional.networks import load_models
from stepwise_jax.functional.state import TrainState, digest
from stepwise_jax.plans.stage import Stage, stage_from_dict, stage_to_dict
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.devices import describe_device
from stepwise_jax.training.progress import Position, position_from_document
from stepwise_jax.training.session import Session, resolve_steps_per_call
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.files import CHECKPOINTS, PREDICTIONS, RECORDS, SAMPLES, SUMMARY
from stepwise_jax.workdir.folder import library_versions, read_experiment, resume_or_start
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.records import StartRecord

_FIELDS_OF_A_HOST = ("data.root", "data.data_dir", "data.workers", "model.initial_weights")
"""Fields that may differ among hosts: where files are, whose contents are compared, and the threads that read them."""

_JAX_OPTIONS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable")
"""Options of JAX that change what is computed."""


def check_same_run(experiment: ExperimentConfig, stages: Sequence[Stage], weights_sha256: str | None) -> None:
    """Check that all processes are about to train one run: before they compute anything together.

    Otherwise they would wait for each other forever, or train what nobody described.

    Raises:
      InputError: on every process, with what differs and on which hosts.
    """
    if jax.process_count() == 1:
        return
    fields = {name: each for name, each in comparable_fields(experiment).items() if name not in _FIELDS_OF_A_HOST}
    planned = {
        f"{name} of stage {number}": each
        for number, stage in enumerate(stages, start=1)
        for name, each in stage_to_dict(stage).items()
    }
    versions = {f"the version of {name}": each for name, each in library_versions().items()}
    options = {name.upper(): getattr(jax.config, name, None) for name in _JAX_OPTIONS}
    rest = {"the SHA-256 of the initial weights": weights_sha256, "the SHA-256 of the program": _hash_program()}
    multihost.check_same_on_all_processes({**fields, **planned, **versions, **options, **rest})


def _hash_program() -> str:
    """A hash over the source files of this package and of the networks."""
    content = hashlib.sha256()
    for folder in (Path(__file__).parents[1], Path(str(load_models().__file__)).parent):
        for path in sorted(folder.rglob("*.py")):
            content.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest()


def open_workdir(
    folder: Path,
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    config_path: str,
    variables: Any | None,
) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    """Return the experiment and the stages as the workdir records them; a new workdir records the given ones.

    Raises:
      InputError: if the workdir has another run, or the processes are not about to train one run.
    """
    weights_sha256 = None if variables is None else digest(variables)
    check_same_run(experiment, stages, weights_sha256)

    def open_first() -> dict[str, Any]:
        resolved = resolve_steps_per_call(experiment, read_experiment(folder))
        chosen = resume_or_start(folder, resolved, stages, config_path, weights_sha256, describe_device())
        return {"steps_per_call": resolved.steps_per_call, "stages": [stage_to_dict(stage) for stage in chosen]}

    opened = multihost.broadcast_from_first(open_first)
    experiment = dataclasses.replace(experiment, steps_per_call=opened["steps_per_call"])
    return experiment, tuple(stage_from_dict(stage) for stage in opened["stages"])


def finished_summary(folder: Path, stages: Sequence[Stage]) -> dict[str, Any] | None:
    """Return the contents of `summary.json` if the run is finished and nothing of it is lost, else None."""

    def read() -> dict[str, Any] | None:
        last = str(sum(stage.updates for stage in stages))
        there = all(path.exists() for path in (folder / SUMMARY, folder / CHECKPOINTS / last))
        # The end of such a file, which one that was cut short lacks, lists its arrays.
        whole = all(zipfile.is_zipfile(folder / name) for name in (PREDICTIONS, SAMPLES))
        return read_json(folder / SUMMARY) if there and whole else None

    return multihost.broadcast_from_first(read)


def recorded_summary(session: Session, position: Position) -> dict[str, Any] | None:
    """Return the contents of `summary.json` if the run is finished, although not all of its results are there."""
    path = session.folder / SUMMARY
    if position.updates != len(session.sampler):
        return None
    return multihost.broadcast_from_first(lambda: read_json(path) if path.exists() else None)


def start_or_resume(session: Session, folder: Path) -> tuple[TrainState, Position]:
    """Return the state and position of the newest good checkpoint, or of the start."""
    initial = session.make_initial_state()
    restored = session.checkpoints.restore(initial, lambda message: session.log.event("fallback", message))
    state, position = initial, Position()
    if restored is not None:
        state, position = restored[0], position_from_document(restored[1])
    updates = sum(stage.updates for stage in session.stages)
    total = sum(stage.updates * stage.batch_size for stage in session.stages)
    title = f"{model_name(session.experiment)} on {session.experiment.data.name}"
    multihost.check_same_on_all_processes({"the last update in checkpoints/": position.updates})
    if restored is not None:
        multihost.broadcast_from_first(lambda: _check_records(session, position, folder))
    session.timer.reset(position.seconds)
    stages, fields = [stage_to_dict(stage) for stage in session.stages], flat_experiment(session.experiment)
    session.log.show(StartRecord(title, stages, total, fields))
    if restored is None:
        session.log.event("start", f"starting: {len(session.stages)} stages, {updates} updates{_lost_epochs(folder)}")
    else:
        session.log.event("resume", f"resuming after {position.updates} of {updates} updates")
    return state, position


def _lost_epochs(folder: Path) -> str:
    """Say how many recorded epochs have no checkpoint: somebody removed it, or the process was killed early."""
    if not multihost.is_first_process() or not (folder / RECORDS).exists():
        return ""
    epochs = len(record_file.read_records(folder).epochs)
    return f"; no checkpoint is left, so the recorded epochs ({epochs}) are trained again" if epochs else ""


def _check_records(session: Session, position: Position, folder: Path) -> None:
    """Refuse to resume if an epoch before the checkpoint is missing in the records: the summary needs it."""
    planned = [
        (number, epoch) for number, stage in enumerate(session.stages, 1) for epoch in range(1, stage.epochs + 1)
    ]
    done = [epoch for epoch in planned if epoch < (position.stage, position.epoch)]
    missing = sorted(set(done) - {(row["stage"], row["epoch"]) for row in record_file.read_records(folder).epochs})
    if missing:
        stage, epoch = missing[0]
        raise InputError(
            f"{folder / RECORDS} lacks epoch {epoch} of stage {stage}, which the checkpoint includes: "
            "restore the file, or use another workdir"
        )
