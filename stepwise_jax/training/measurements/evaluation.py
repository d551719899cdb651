"""Scores and predictions of a state on the test set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from stepwise_jax.data import datasets
from stepwise_jax.data.batches import pad_rows
from stepwise_jax.errors import InputError, InterruptedRunError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.metrics import scores_from_sums
from stepwise_jax.functional.recipe import make_recipe
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime.signals import Stopped, until_stopped
from stepwise_jax.training.progress import Observer, position_from_document, updates_before
from stepwise_jax.training.scoring import Scoring, open_scoring
from stepwise_jax.training.session import Session
from stepwise_jax.workdir import lock
from stepwise_jax.workdir.files import CHECKPOINTS, SUBSETS
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.predictions import Ranking


def evaluate(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    network: nn.Module,
    folder: Path,
    observers: Sequence[Observer] = (),
) -> dict[str, Any]:
    """Score the newest good checkpoint of a run, and change nothing in its folder.

    Returns:
      The scores of that checkpoint (`top1`, `loss`, ..., and all of them as `metrics`) on `test_images`, its `updates`,
      `stage` and `epoch`, the run's `planned_updates`, and the newer `damaged_checkpoints`, by their updates.

    Raises:
      InputError: if the run has no checkpoint yet, its data has changed, or a process is training it.
      ReadError: if a checkpoint cannot be read for a reason that may pass.
    """
    _check_scorable(experiment, folder)
    with (
        lock.shared_lock(folder),
        open_scoring(experiment, stages, network, folder, observers) as session,
    ):
        restored = session.checkpoints.restore(
            session.make_initial_state(), lambda message: session.log.event("fallback", message)
        )
        if restored is None:
            raise InputError(f"{folder} has no checkpoint yet: train it first")
        state, position = restored[0], position_from_document(restored[1])
        try:
            scores = score_test_set(session, state)
        except Stopped as error:
            raise InterruptedRunError(f"stopped by {session.stop.name} before all images were scored") from error
    finished = position.stage > len(stages)
    stage, epoch = (len(stages), stages[-1].epochs) if finished else (position.stage, position.epoch)
    images = len(session.test_ids)
    reached = {"updates": position.updates, "planned_updates": updates_before(stages, len(stages) + 1)}
    damaged = list(session.checkpoints.damaged)
    place = {**reached, "damaged_checkpoints": damaged, "stage": stage, "epoch": epoch}
    return {**scores, "metrics": scores, "test_images": images, **place}


def _check_scorable(experiment: ExperimentConfig, folder: Path) -> None:
    if not (folder / CHECKPOINTS).is_dir():
        raise InputError(f"{folder} has no checkpoint yet: train it first")
    # Without the recorded examples, nothing would say whether the data is still that of the run.
    read_json(folder / SUBSETS)
    # Before the data is opened: the file of a function may be gone.
    make_recipe(experiment, datasets.sizes(experiment.data).num_classes)


BATCHES_IN_FLIGHT = 3


def score_test_set(session: Session | Scoring, state: TrainState) -> dict[str, float]:
    """Return every metric of the whole test set, exact for any batch size.

    Raises:
      Stopped: if a signal arrives meanwhile.
    """
    examples, (rows, masks) = _test_batches(session)
    sums: list[dict[str, jax.Array]] = []
    for inputs, mask in zip(until_stopped(session.stop, session.test_loader.batches(rows)), masks, strict=True):
        sums.append(session.compiled.evaluate(state, session.test_loader.examples, inputs, mask))
        # Otherwise streamed images would pile up on the device.
        jax.block_until_ready(sums[-BATCHES_IN_FLIGHT:][0])
    return scores_from_sums(session.compiled.metrics, sums, examples)


def predict_test_set(session: Session, state: TrainState) -> Ranking:
    """Return the most probable classes of every test example, and the rank of its correct class.

    Raises:
      Stopped: if a signal arrives meanwhile.
    """
    examples, (rows, _) = _test_batches(session)
    batches = [
        jax.device_get(session.compiled.predict(state, session.test_loader.examples, inputs))
        for inputs in until_stopped(session.stop, session.test_loader.batches(rows))
    ]
    return Ranking(*(np.concatenate(arrays)[:examples] for arrays in zip(*batches, strict=True)))


def _test_batches(session: Session | Scoring) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    examples = len(session.test_ids)
    return examples, pad_rows(
        examples, session.compiled.evaluation_batch_size(session.experiment.evaluation.batch_size, examples)
    )
