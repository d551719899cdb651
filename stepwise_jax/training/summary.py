"""The end of a run: `predictions.npz`, `samples.npz` and `summary.json`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepwise_jax.errors import SaveError
from stepwise_jax.formatting import describe_scores
from stepwise_jax.functional.state import TrainState, digest, learned_state
from stepwise_jax.runtime import multihost
from stepwise_jax.training.measurements.evaluation import predict_test_set
from stepwise_jax.training.programs.step_functions import step_options
from stepwise_jax.training.session import Session
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.files import PREDICTIONS, SAMPLES, SUMMARY
from stepwise_jax.workdir.json_files import write_json
from stepwise_jax.workdir.predictions import choose_samples, write_predictions, write_samples
from stepwise_jax.workdir.records import TIME_KINDS, row_metrics
from stepwise_jax.workdir.writing import write_advice


def write_results(
    session: Session, state: TrainState, folder: Path, recorded: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write `predictions.npz`, `samples.npz` and `summary.json` of a saved state; return the contents of the last.

    Where the summary is `recorded` already, the predictions were lost: it stays as it is.

    Raises:
      SaveError: if one of them cannot be written.
      Stopped: if a signal arrives meanwhile.
    """
    with session.timer.measure("evaluate"):
        ranking = predict_test_set(session, state)
    rows = choose_samples(ranking.label_ranks == 0, ranking.probabilities[:, 0])
    images = session.test_loader.images(rows)

    def write() -> dict[str, Any]:
        session.checkpoints.check()
        summary = recorded or make_summary(session, state, record_file.read_records(folder))
        with _explain_write_failure(folder):
            write_predictions(folder / PREDICTIONS, session.test_ids, session.test_labels, session.classes, ranking)
            write_samples(rows, images, folder / SAMPLES)
            write_json(folder / SUMMARY, summary)
        return summary

    summary = multihost.broadcast_from_first(write)
    done = f"done: {describe_scores(summary['metrics'], summary['test_images'])}"
    session.log.event("done", f"{PREDICTIONS} and {SAMPLES} are written again" if recorded else done)
    return summary


@contextmanager
def _explain_write_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SaveError(
            f"{folder} cannot be written ({error.strerror}): training is done and saved; {write_advice(error)} "
            "to write the predictions and the summary"
        ) from error


def make_summary(session: Session, state: TrainState, rows: record_file.RunRecords) -> dict[str, Any]:
    """Return the contents of `summary.json`, from the run's records and its final state."""
    last = rows.epochs[-1]
    ends = {row["stage"]: row for row in rows.epochs}
    after_last_epoch = session.timer.read()
    seconds = {kind: sum(row["seconds"][kind] for row in rows.epochs) + after_last_epoch[kind] for kind in TIME_KINDS}
    scores = ("top1", "top5", "test_loss", "train_loss", "examples_seen", "updates")
    return {
        "top1": last["top1"],
        "top5": last["top5"],
        "best_top1": last["best_top1"],
        "metrics": row_metrics(last),
        "test_images": len(session.test_ids),
        "samples": sum(stage.samples for stage in session.stages),
        "updates": sum(stage.updates for stage in session.stages),
        "flops": training_flops(session, state),
        "seconds": seconds,
        "stages": [
            {"name": stage.name, **{name: ends[number][name] for name in scores}, "metrics": row_metrics(ends[number])}
            for number, stage in enumerate(session.stages, start=1)
        ],
        "state_sha256": digest(learned_state(state)),
    }


def training_flops(session: Session, state: TrainState) -> float:
    """Return the floating-point operations of all optimiser steps; XLA counts one step of each batch size."""
    loader, compiled = session.train_loader, session.compiled
    programs = {(stage.batch_size, step_options(stage)) for stage in session.stages}
    step = {
        (size, options): compiled.flops_per_step(state, loader.examples, loader.abstract_inputs(1, size), options)
        for size, options in programs
    }
    return sum(stage.updates * step[stage.batch_size, step_options(stage)] for stage in session.stages)
