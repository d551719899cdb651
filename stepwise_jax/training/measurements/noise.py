"""Gradient noise in a run: measured between updates, with the weights held, on the stage's own examples."""

import typing
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import numpy as np

from stepwise_jax.data.sampler import independent_batches
from stepwise_jax.functional.gradient_noise import GROUPS, GradientGroup, GradientNoise, estimate_noise
from stepwise_jax.functional.state import TrainState
from stepwise_jax.functional.train_step import Statistics
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale
from stepwise_jax.runtime.sharding import place, replicated
from stepwise_jax.runtime.signals import until_stopped
from stepwise_jax.training.programs.step_functions import step_options
from stepwise_jax.training.session import Session
from stepwise_jax.workdir.records import NoiseRecord

Side = Literal["start", "end"]

STATISTICS: tuple[Statistics, ...] = typing.get_args(Statistics)

BATCHES_IN_FLIGHT = 3


def count_microbatches(stages: Sequence[Stage], stage: Stage, share: float) -> int:
    """Return the microbatches of each measurement of a stage: a multiple of `GROUPS`, and that many at least.

    Args:
      stages: the whole plan, which is measured at the end of each stage and at the start of each but the first.
      stage: whose batch size the microbatches have.
      share: of the run's samples that all measurements together see.
    """
    measurements = (2 * len(stages) - 1) * len(STATISTICS)
    examples = share * sum(each.samples for each in stages) / measurements
    return max(1, int(examples / stage.batch_size / GROUPS)) * GROUPS


def measure_noise(session: Session, state: TrainState, number: int, side: Side) -> None:
    """Measure the gradient noise of a state with stage `number`'s examples and batch size, if that is wanted.

    The same examples serve both kinds of statistics: a function of the seed of the order, the stage and the side.

    Raises:
      Stopped: if a signal arrives meanwhile.
    """
    experiment, stage = session.experiment, session.stages[number - 1]
    if experiment.measure != "noise":
        return
    count, seed = count_microbatches(session.stages, stage, experiment.measure_share), experiment.stream_seed("order")
    side_number, subset = typing.get_args(Side).index(side), session.subsets[number - 1].rows
    rows = independent_batches(seed, number, side_number, subset, count, stage.batch_size)
    for statistics in STATISTICS:
        before = session.timer.read()["evaluate"]
        with session.timer.measure("evaluate"):
            noise = estimate_noise(list(_groups(session, state, stage, rows, statistics)), stage.batch_size)
        seconds = session.timer.read()["evaluate"] - before
        session.log.record(make_record(stage, number, side, statistics, count, noise, seconds))


def _groups(
    session: Session, state: TrainState, stage: Stage, rows: np.ndarray, statistics: Statistics
) -> Iterator[GradientGroup]:
    """Yield the sums of each group of the microbatches `rows` [K, b]: two gradients are on the device at a time."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state.params)
    start, options = place(zeros, replicated(session.mesh)), step_options(stage)
    examples = session.train_loader.examples
    total, squares = start, []
    for number, inputs in enumerate(until_stopped(session.stop, session.train_loader.batches(rows))):
        total, square = session.compiled.add_gradient(total, number, state, examples, inputs, statistics, options)
        squares.append(square)
        # Otherwise streamed images would pile up on the device.
        jax.block_until_ready(squares[-BATCHES_IN_FLIGHT:][0])
        if len(squares) == len(rows) // GROUPS:
            summed = float(np.sum(jax.device_get(squares), dtype=np.float64))
            yield GradientGroup(jax.device_get(total), summed, len(squares))
            total, squares = start, []


def make_record(
    stage: Stage,
    number: int,
    side: Side,
    statistics: Statistics,
    microbatches: int,
    noise: GradientNoise,
    seconds: float,
) -> NoiseRecord:
    """Return the record of a measurement, with the formulas at the rate of the stage's first or last epoch."""
    rate = learning_rate_at(stage, 1 if side == "start" else stage.epochs)
    return NoiseRecord(
        stage=number,
        stage_name=stage.name,
        side=side,
        statistics=statistics,
        microbatches=microbatches,
        microbatch_size=stage.batch_size,
        trace=noise.trace.value,
        trace_interval=noise.trace[1:],
        squared_norm=noise.squared_norm.value,
        squared_norm_interval=noise.squared_norm[1:],
        b_simple=noise.b_simple.value,
        b_simple_interval=noise.b_simple[1:],
        learning_rate=rate,
        noise_scale=noise_scale(stage, rate),
        rate_over_batch=rate / stage.batch_size,
        step_noise=rate * noise.trace.value / stage.batch_size,
        seconds=seconds,
    )


def compile_noise_ahead(session: Session, state: TrainState, stage: Stage) -> None:
    """Compile in the background what measures a stage."""
    if session.experiment.measure != "noise":
        return
    loader, options = session.train_loader, step_options(stage)
    inputs = loader.abstract_inputs(stage.batch_size)
    for statistics in STATISTICS:
        session.compiled.compile_gradient_ahead(state, loader.examples, inputs, statistics, options)
