"""Everything that a run needs, opened and placed before its first step."""

import dataclasses
import math
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

from stepwise_jax.data import datasets, subsets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.loaders import Loader
from stepwise_jax.data.placement import Split, open_data, open_split
from stepwise_jax.data.sampler import PlanOrder
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.preprocessing import Preprocessing, make_preprocessing
from stepwise_jax.functional.state import TrainState, make_initializer, state_from
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import agreement, compile_cache, multihost, sharding
from stepwise_jax.runtime.signals import stop_on_signals
from stepwise_jax.training.compilation import CompiledFunctions
from stepwise_jax.training.progress import Observer, RunLog
from stepwise_jax.training.timing import Profile, Timer
from stepwise_jax.workdir import signature
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.workdir.files import CHECKPOINTS, SUBSETS
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.signature import Signature


@dataclass(frozen=True)
class Session:
    """What stays the same from the first step of a run to its last."""

    experiment: ExperimentConfig
    stages: tuple[Stage, ...]
    subsets: tuple[subsets.Subset, ...]
    optimizer: optax.GradientTransformation
    initial: Callable[[], TrainState]
    """Makes the state before the first step."""
    order: PlanOrder
    """The batches of the whole run."""
    train: Loader
    test: Loader
    test_labels: np.ndarray
    """int32 [N]"""
    test_ids: tuple[str, ...]
    classes: tuple[str, ...]
    """Names, in the order of the labels."""
    programs: CompiledFunctions
    clock: Timer
    checkpoints: Checkpoints
    log: RunLog
    stop: agreement.StopAgreement
    mesh: Mesh
    folder: Path
    """The run's workdir."""
    profile: Profile | None = None
    """The epoch to trace, if any."""

    def place(self, state: TrainState) -> TrainState:
        """The state on every device; one placement from the first step on, so that nothing compiles twice."""
        return sharding.place(state, sharding.replicated(self.mesh))


class _Data(NamedTuple):
    """The data of a run, opened."""

    dataset: Dataset
    train: Split
    test: Split
    subsets: tuple[subsets.Subset, ...]
    preprocessing: Preprocessing


@contextmanager
def open_session(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    network: nn.Module,
    variables: Any | None,
    folder: Path,
    observers: Sequence[Observer] = (),
    profile: Profile | None = None,
) -> Iterator[Session]:
    """Opens the data, draws and records the subsets, and puts everything in its place on the devices.

    Args:
      experiment: with every open choice resolved.
      stages: what will be run.
      network: called as `network.apply(variables, images, train=...)`.
      variables: `{"params", "batch_stats"}` to start from, or None for random ones.
      folder: the run's workdir, locked by the caller.
      observers: called with each record of the run.
      profile: the epoch to trace, if any.
    """
    compile_cache.enable()
    mesh, clock = sharding.make_mesh(), Timer()
    multihost.on_all_processes(partial(_check_plan, experiment, stages, network, mesh))
    optimizer = make_optimizer(experiment.optimizer)
    with ExitStack() as stack:
        log = stack.enter_context(RunLog(folder if multihost.is_first_process() else None, observers))
        data = stack.enter_context(_opened_data(experiment, stages, mesh, folder, log))
        programs = stack.enter_context(_compiled(experiment, network, optimizer, data.preprocessing, mesh, clock, log))
        checkpoints = stack.enter_context(Checkpoints(folder / CHECKPOINTS, experiment.checkpoint.keep))
        yield Session(
            experiment=experiment,
            stages=stages,
            subsets=data.subsets,
            optimizer=optimizer,
            initial=_initializer(experiment, network, variables, optimizer, mesh),
            order=PlanOrder(experiment.seed, stages, [subset.rows for subset in data.subsets]),
            train=data.train.feed,
            test=data.test.feed,
            test_labels=data.test.labels,
            test_ids=data.test.ids,
            classes=data.dataset.class_names,
            programs=programs,
            clock=clock,
            checkpoints=checkpoints,
            log=log,
            stop=agreement.StopAgreement(stack.enter_context(stop_on_signals()), mesh),
            mesh=mesh,
            folder=folder,
            profile=profile if multihost.is_first_process() else None,
        )


@contextmanager
def _compiled(
    experiment: ExperimentConfig,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    preprocessing: Preprocessing,
    mesh: Mesh,
    clock: Timer,
    log: RunLog,
) -> Iterator[CompiledFunctions]:
    """The functions of the devices; at the end, no more is compiled in the background."""
    report = partial(log.event, "compile")
    deterministic = experiment.deterministic
    programs = CompiledFunctions(network, optimizer, preprocessing, mesh, clock, report, deterministic=deterministic)
    try:
        yield programs
    finally:
        programs.close()


@contextmanager
def _opened_data(
    experiment: ExperimentConfig, stages: tuple[Stage, ...], mesh: Mesh, folder: Path, log: RunLog
) -> Iterator[_Data]:
    """The data set with its subsets, whose proof and whose signature are on record in the workdir."""
    config = experiment.data
    dataset, placement = open_data(config, mesh, log.prepared)
    log.event("delivery", placement.reason)
    train, test = (open_split(config, dataset, split, placement, mesh, log.prepared) for split in ("train", "test"))
    try:
        _check_size(experiment, stages, len(train.labels))
        drawn = multihost.first_then_others(partial(_draw, experiment, stages, train, test, dataset, folder))
        preprocessing = make_preprocessing(config.normalisation, config.image_size, train.histograms)
        shape = datasets.image_shape(dataset, config.image_size)
        ours = Signature(preprocessing, shape, dataset.class_names, config.name)
        multihost.broadcast_from_first(partial(signature.record, folder, ours))
        yield _Data(dataset, train, test, drawn, preprocessing)
    finally:
        train.feed.close()


def resolve(experiment: ExperimentConfig, recorded: ExperimentConfig | None) -> ExperimentConfig:
    """The experiment with what depends on the machine decided, as an earlier process of the run decided it."""
    if experiment.steps_per_call:
        return experiment
    chosen = recorded.steps_per_call if recorded else 1 if jax.default_backend() == "cpu" else 32
    return dataclasses.replace(experiment, steps_per_call=chosen)


def _check_plan(experiment: ExperimentConfig, stages: tuple[Stage, ...], network: nn.Module, mesh: Mesh) -> None:
    check_batches(stages, mesh)
    _check_single_images(stages, network, experiment.data.image_size)


def _check_single_images(stages: tuple[Stage, ...], network: nn.Module, image_size: int) -> None:
    """Refuses batches of one image where the maps of the network shrink to one value a channel, which do not vary."""
    single = [f"{number} ({stage.name})" for number, stage in enumerate(stages, 1) if stage.batch_size == 1]
    if not single:
        return
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    variables = jax.eval_shape(partial(network.init, train=False), jax.random.key(0), image)
    try:
        jax.eval_shape(partial(network.apply, train=True, mutable=["batch_stats"]), variables, image)
    except ValueError as error:
        raise InputError(f"batch_size of stage {single[0]} is 1: {error}") from error


def _check_size(experiment: ExperimentConfig, stages: tuple[Stage, ...], examples: int) -> None:
    largest = max(stage.examples for stage in stages)
    if largest > examples:
        raise InputError(
            f"the plan needs {largest} training examples and data.name {experiment.data.name!r} has {examples}"
        )


def _draw(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    train: Split,
    test: Split,
    dataset: Dataset,
    folder: Path,
) -> tuple[subsets.Subset, ...]:
    """The stages' subsets, with their proof in `subsets.json`; a resumed run must find the same there.

    Raises:
      InputError: if the data is no longer what the run began with.
    """
    counts = [stage.examples for stage in stages]
    drawn = subsets.draw(experiment.data.subset_draw, experiment.seed, train.labels, train.ids, counts, dataset.builder)
    scored, _ = datasets.used_rows(experiment.data, dataset, "test")
    manifest = subsets.manifest(drawn, [stage.name for stage in stages], dataset, train.ids, test.ids, scored)
    path = folder / SUBSETS
    if not path.exists():
        if not multihost.is_first_process():
            raise InputError(f"--workdir {folder} is not the first process's: it must lie where all processes see it")
        write_json(path, manifest)
    elif read_json(path) != manifest:
        raise InputError(f"{path} records other examples than {experiment.data.name} holds now: the data has changed")
    return drawn


def _initializer(
    experiment: ExperimentConfig,
    network: nn.Module,
    variables: Any | None,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> Callable[[], TrainState]:
    create_state = _compile_once(make_initializer(network, optimizer, experiment.data.image_size))

    def initial() -> TrainState:
        random = variables is None
        state = create_state(jax.random.key(experiment.seed)) if random else state_from(variables, optimizer)
        return sharding.place(state, sharding.replicated(mesh))

    return initial


def _compile_once(function: Callable[..., TrainState]) -> Callable[..., TrainState]:
    # LLVM takes six times as long to optimise the random generators as they take to run once without.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=quick)


def check_batches(stages: Sequence[Stage], mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly.

    Raises:
      InputError: with the nearest batch sizes that fit, and the numbers of devices that fit every stage.
    """
    devices = mesh.size
    for index, stage in enumerate(stages, start=1):
        below = stage.batch_size // devices * devices
        if below != stage.batch_size:
            fitting = " or ".join(str(size) for size in (below, below + devices) if size)
            raise InputError(
                f"batch_size of stage {index} ({stage.name}) is {stage.batch_size}: "
                f"{devices} devices share a batch evenly, so it must be {fitting}; "
                f"the batches of this plan fit {_device_counts(stages, devices)}"
            )


def _device_counts(stages: Sequence[Stage], most: int) -> str:
    """The numbers of devices below `most` that share every stage's batch evenly, in words."""
    common = math.gcd(*(stage.batch_size for stage in stages))
    *others, last = (str(count) for count in range(1, most) if common % count == 0)
    return f"{', '.join(others)} or {last} devices" if others else "one device alone"
