"""The session of a run: its data, functions, checkpoints and log, opened before the first step."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from stepwise_jax.data import subsets
from stepwise_jax.data.batches import check_batch_sizes
from stepwise_jax.data.loaders import Loader
from stepwise_jax.data.sampler import PlanSampler
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.checks import check_single_images
from stepwise_jax.functional.optimizers import inject
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.functional.recipe import Recipe, make_recipe, state_options
from stepwise_jax.functional.state import TrainState, make_initializer, state_from_variables
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import agreement, compile_cache, multihost, sharding
from stepwise_jax.runtime.signals import stop_on_signals
from stepwise_jax.training.measurements.timing import ProfiledEpoch, Timer
from stepwise_jax.training.opening import open_run_data
from stepwise_jax.training.programs.compilation import CompiledFunctions
from stepwise_jax.training.progress import Observer, RunLog
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.workdir.files import CHECKPOINTS
from stepwise_jax.workdir.lock import HeldLock


@dataclass(frozen=True)
class Session:
    """Everything that stays the same from the first step of a run to its last."""

    experiment: ExperimentConfig
    stages: tuple[Stage, ...]
    subsets: tuple[subsets.Subset, ...]
    """The training examples of each stage."""
    recipe: Recipe
    """The loss, the optimizer, and what else is replaced."""
    make_initial_state: Callable[[], TrainState]
    """Makes the state before the first step."""
    sampler: PlanSampler
    """The batches of the whole run."""
    train_loader: Loader
    test_loader: Loader
    test_labels: np.ndarray
    """int32 [N]"""
    test_ids: tuple[str, ...]
    classes: tuple[str, ...]
    """Class names, in the order of the labels."""
    compiled: CompiledFunctions
    timer: Timer
    checkpoints: Checkpoints
    log: RunLog
    stop: agreement.StopAgreement
    """True once a signal has requested a stop."""
    mesh: Mesh
    folder: Path
    """The run's workdir."""
    profile: ProfiledEpoch | None = None
    """The epoch to trace, if any."""

    def place(self, state: TrainState) -> TrainState:
        """Place a state on every device, always with the same sharding, so that nothing compiles twice."""
        return sharding.place(state, sharding.replicated(self.mesh))


class FunctionFields(NamedTuple):
    """The fields of a `Session` that come from the network and its optimizer."""

    recipe: Recipe
    make_initial_state: Callable[[], TrainState]
    compiled: CompiledFunctions
    timer: Timer


@contextmanager
def open_session(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    network: nn.Module,
    variables: Any | None,
    folder: Path,
    observers: Sequence[Observer] = (),
    profile: ProfiledEpoch | None = None,
    held: HeldLock | None = None,
) -> Iterator[Session]:
    """Open the data, draw and record the subsets, and place the images on the devices.

    Args:
      experiment: resolved, as in `config.json`.
      stages: to run.
      network: called as `network.apply(variables, images, train=...)`.
      variables: to start from, or None for random ones.
      folder: the run's workdir, locked by the caller.
      observers: called with each record of the run.
      profile: the epoch to trace.
      held: the lock on the workdir, which is checked before each save.
    """
    mesh, is_first = open_devices(experiment, stages, network), multihost.is_first_process()
    with ExitStack() as stack:
        log = stack.enter_context(RunLog(folder if is_first else None, observers))
        data, processing = stack.enter_context(open_run_data(experiment, stages, mesh, folder, log))
        opening = open_functions(experiment, network, variables, data.classes, processing, mesh, log)
        checkpoints = Checkpoints(folder / CHECKPOINTS, experiment.checkpoint.keep, check=held and held.check)
        yield Session(
            experiment=experiment,
            stages=stages,
            **data._asdict(),
            **stack.enter_context(opening)._asdict(),
            checkpoints=stack.enter_context(checkpoints),
            stop=agreement.StopAgreement(stack.enter_context(stop_on_signals()), mesh),
            log=log,
            mesh=mesh,
            folder=folder,
            profile=profile if is_first else None,
        )


def open_devices(experiment: ExperimentConfig, stages: tuple[Stage, ...], network: nn.Module) -> Mesh:
    """Return the mesh of all devices, on which the plan is found to be trainable."""
    compile_cache.enable()
    mesh = sharding.make_mesh()
    multihost.on_all_processes(partial(_check_plan, experiment, stages, network, mesh))
    return mesh


@contextmanager
def open_functions(
    experiment: ExperimentConfig,
    network: nn.Module,
    variables: Any | None,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    mesh: Mesh,
    log: RunLog,
) -> Iterator[FunctionFields]:
    """Yield the functions that run on the devices; on exit, compile nothing more in the background."""
    recipe = make_recipe(experiment, len(classes))
    optimizer, timer = inject(recipe.optimizer, recipe.clip_norm), Timer()
    compiled = CompiledFunctions(
        network,
        optimizer,
        preprocessing,
        mesh,
        timer,
        partial(log.event, "compile"),
        recipe=recipe,
        num_classes=len(classes),
        deterministic=experiment.deterministic,
    )
    make_initial_state = _initializer(experiment, recipe, network, variables, optimizer, mesh)
    try:
        yield FunctionFields(recipe, make_initial_state, compiled, timer)
    finally:
        compiled.close()


def resolve_steps_per_call(experiment: ExperimentConfig, recorded: ExperimentConfig | None) -> ExperimentConfig:
    """Return the experiment with `steps_per_call` resolved: as recorded in the workdir, else by the kind of device."""
    if experiment.steps_per_call:
        return experiment
    chosen = recorded.steps_per_call if recorded else 1 if jax.default_backend() == "cpu" else 32
    return dataclasses.replace(experiment, steps_per_call=chosen)


def _check_plan(experiment: ExperimentConfig, stages: tuple[Stage, ...], network: nn.Module, mesh: Mesh) -> None:
    check_batch_sizes(stages, mesh)
    check_single_images(stages, network, experiment.data.image_size)


def _initializer(
    experiment: ExperimentConfig,
    recipe: Recipe,
    network: nn.Module,
    variables: Any | None,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> Callable[[], TrainState]:
    size = experiment.data.image_size
    options = state_options(recipe, network, size)
    create_state = _compile_once(make_initializer(network, optimizer, size, options))

    def make_initial_state() -> TrainState:
        key = jax.random.key(experiment.stream_seed("init"))
        state = create_state(key) if variables is None else state_from_variables(variables, optimizer, key, options)
        if state.key is not None:
            state = state._replace(key=jax.random.key_data(jax.random.key(experiment.stream_seed("order"))))
        return sharding.place(state, sharding.replicated(mesh))

    return make_initial_state


def _compile_once(function: Callable[..., TrainState]) -> Callable[..., TrainState]:
    # LLVM needs six times as long to optimise the random generators as they need to run once unoptimised.
    unoptimised = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=unoptimised)
