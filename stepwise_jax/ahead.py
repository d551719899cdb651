"""What a run compiles, and when: a stage's calls before its first step, all that comes later beside the training."""

from stepwise_jax.data.sampler import steps_in_call
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage
from stepwise_jax.session import Session


def call_lengths(stage: Stage, steps_per_call: int) -> tuple[int, ...]:
    """Steps in the calls of an epoch: in whole ones, and in the shorter one that ends it where there is one."""
    steps = steps_in_call(stage.updates_per_epoch, steps_per_call)
    return tuple(length for length in (steps, stage.updates_per_epoch % steps) if length)


def compile_stage(session: Session, stage: Stage, state: TrainState) -> None:
    """Compiles the stage's calls, or waits for those that are under way."""
    for length in call_lengths(stage, session.experiment.steps_per_call):
        picked = session.train.abstract(length, stage.batch_size)
        session.programs.prepare_train(state, session.train.examples, picked)


def compile_ahead(session: Session, state: TrainState, number: int) -> None:
    """Compiles in the background what comes after the first step of stage `number`, in the order of its need.

    Args:
      session: the run.
      state: as stage `number` begins with it.
      number: from 1.
    """
    experiment, programs, train, test = session.experiment, session.programs, session.train, session.test
    wanted = programs.evaluation_batch(experiment.evaluation.batch_size, len(session.test_ids))
    programs.prepare_scores_ahead(state, test.examples, test.abstract(wanted))
    for stage in session.stages[number:]:
        if experiment.plan.batch_statistics == "reestimated":
            programs.prepare_statistics_ahead(state, train.examples, train.abstract(stage.batch_size))
        for length in call_lengths(stage, experiment.steps_per_call):
            programs.prepare_train_ahead(state, train.examples, train.abstract(length, stage.batch_size))
    programs.prepare_predictions_ahead(state, test.examples, test.abstract(wanted))
