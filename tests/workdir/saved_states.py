"""States of training whose every number depends on the step, and checkpoints of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.state import TrainState, state_from_variables
from stepwise_jax.runtime import sharding
from stepwise_jax.workdir.checkpoints import Checkpoints, PositionDocument

POSITION: PositionDocument = {
    "stage": 2,
    "loss_sum": 0.1 + 0.2,
    "best_top1": None,
    "seconds": {"train": 1e-17},
    "updates": 10**12,
}
NEWEST, BEFORE = 7, 3


def a_state(step: int, rows: int = 500) -> TrainState:
    """A state of many kinds of leaves in which every number depends on the step.

    Its kernel is too large for Orbax to keep it among its own, checksummed, tables: as those of real networks are.
    """
    random = np.random.default_rng(step)
    shapes = {"block": {"kernel": (3, rows, 2), "bias": (2,)}, "scale": ()}
    params = jax.tree.map(lambda shape: random.normal(size=shape), shapes, is_leaf=lambda node: isinstance(node, tuple))
    variables = {"params": params, "batch_stats": {"norm": {"mean": random.normal(size=2), "var": random.random(2)}}}
    variables = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), variables)
    state = state_from_variables(variables, make_optimizer(OptimizerConfig()))
    momentum = jax.tree.map(lambda leaf: leaf + step if leaf.dtype == jnp.float32 else leaf, state.opt_state)
    state = state._replace(step=jnp.int32(step), opt_state=momentum)
    return jax.device_put(state, sharding.replicated(sharding.make_mesh()))


def bits(state: TrainState) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Every leaf's path, dtype, shape and bytes."""
    leaves = jax.tree.leaves_with_path(jax.device_get(state))
    arrays = [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]
    return [(name, str(leaf.dtype), leaf.shape, leaf.tobytes()) for name, leaf in arrays]


def committed(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def files_of(folder: Path, step: int) -> list[Path]:
    return sorted(path.relative_to(folder) for path in (folder / str(step)).rglob("*") if path.is_file())


def save_two(folder: Path) -> Path:
    """The folder, with good checkpoints after `BEFORE` and `NEWEST` steps."""
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (BEFORE, NEWEST):
            checkpoints.save(a_state(step), POSITION | {"stage": step})
    return folder
