"""Rules of a stage boundary: what a stage keeps of the one before.

A rule is a pure function `state, make_initial_state -> state`, from the state at the end of a stage to that at the
start of the next. `make_initial_state()` makes the state before the first step of the run; its optimizer has no memory.
Batch statistics are kept, reset or re-estimated beside that.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.experiment.functions import load
from stepwise_jax.functional.state import TrainState

MakeState = Callable[[], TrainState]

BoundaryRule = Callable[[TrainState, MakeState], TrainState]
"""`state, make_initial_state -> state`."""


def keep_state(state: TrainState, make_initial_state: MakeState) -> TrainState:
    """Keep everything: weights, batch statistics and the optimizer's memory."""
    return state


def keep_weights(state: TrainState, make_initial_state: MakeState) -> TrainState:
    """Keep weights and batch statistics, without the optimizer's memory."""
    return state._replace(opt_state=make_initial_state().opt_state)


def keep_nothing(state: TrainState, make_initial_state: MakeState) -> TrainState:
    """Start from the initial weights again."""
    return make_initial_state()._replace(step=state.step)


def shrink_perturb(shrink: float = 0.4, perturb: float = 0.1) -> BoundaryRule:
    """Shrink the weights and add a little of the initial ones, without the optimizer's memory.

    Ash and Adams, "On warm-starting neural network training" (2020), Eq. 1, with initial weights as the noise, as their
    code has it.

    Args:
      shrink: factor of the trained weights.
      perturb: factor of the initial ones.
    """

    def rule(state: TrainState, make_initial_state: MakeState) -> TrainState:
        initial = make_initial_state()
        mix = lambda old, new: shrink * old + perturb * new  # noqa: E731
        return state._replace(params=jax.tree.map(mix, state.params, initial.params), opt_state=initial.opt_state)

    return rule


BOUNDARY_RULES: dict[str, BoundaryRule] = {
    "state": keep_state,
    "weights": keep_weights,
    "nothing": keep_nothing,
    "shrink_perturb": shrink_perturb(),
}
"""The rules that `plan.carry` can name."""


def cross_stage_boundary(state: TrainState, make_initial_state: MakeState, plan: PlanConfig) -> TrainState:
    """Return the state at the start of a stage, from the end of the previous one, by `plan.carry`.

    It resets "reestimated" batch statistics, too: `reestimate_batch_stats` needs the stage's images.

    Args:
      state: at the end of the previous stage.
      make_initial_state: makes the state before the first step of the run.
      plan: `carry` and `batch_statistics`.
    """
    rule = load(plan.carry) if callable(plan.carry) else BOUNDARY_RULES[plan.carry]
    crossed = rule(state, make_initial_state)._replace(step=state.step)
    if plan.batch_statistics == "carried":
        return crossed
    return crossed._replace(batch_stats=initial_batch_stats(crossed.batch_stats))


def reestimate_batch_stats(statistics: Callable[[Any, Any], Any], batch_stats: Any, batches: Iterable[Any]) -> Any:
    """Compute batch statistics as the plain mean over all `batches`, independent of the network's momentum.

    Args:
      statistics: `batch_stats, batch -> batch_stats` after one batch in training mode, affine in its first argument.
      batch_stats: a tree of the right shapes.
      batches: passed to `statistics` one at a time.

    Returns:
      A tree like `batch_stats`.
    """
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    sums, count, kept = zeros, 0, None
    for batch in batches:
        from_zeros = statistics(zeros, batch)
        if kept is None:
            # The running average is kept * old + (1 - kept) * batch, so two old values determine `kept`. The second is
            # no smaller than the batch's own, or large activations would round `kept` away.
            probe = jax.tree.map(lambda value: 1 + jnp.abs(value), from_zeros)
            from_probe = statistics(probe, batch)
            kept = jax.tree.map(lambda new, zero, old: (new - zero) / old, from_probe, from_zeros, probe)
        sums = jax.tree.map(jnp.add, sums, from_zeros)
        count += 1
    return jax.tree.map(lambda total, momentum: total / count / (1 - momentum), sums, kept)


def initial_batch_stats(batch_stats: Any) -> Any:
    """Return running means of 0 and running variances of 1, in the shapes of `batch_stats`."""

    def value(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return jnp.full_like(leaf, 1.0 if jax.tree_util.keystr(path[-1:], simple=True) == "var" else 0.0)

    return jax.tree_util.tree_map_with_path(value, batch_stats)
