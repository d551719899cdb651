"""Everything that a run needs, opened and placed before its first step."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from stepwise_jax.cli.display import Display
from stepwise_jax.data import datasets, subsets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.loaders import Feed
from stepwise_jax.data.placement import Split, open_data, open_split
from stepwise_jax.data.sampler import PlanOrder
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.preprocessing import make_preprocessing
from stepwise_jax.functional.state import TrainState, make_initializer, state_from
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import agreement, compile_cache, multihost, sharding
from stepwise_jax.runtime.signals import stop_on_signals
from stepwise_jax.training.compilation import Programs
from stepwise_jax.training.timing import Clock, Profile
from stepwise_jax.workdir import signature
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.workdir.folder import CHECKPOINTS, SUBSETS
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.records import Discarding, EventRecord, Writer
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
    train: Feed
    test: Feed
    test_labels: np.ndarray
    """int32 [N]"""
    test_ids: tuple[str, ...]
    classes: tuple[str, ...]
    """Names, in the order of the labels."""
    programs: Programs
    clock: Clock
    checkpoints: Checkpoints
    writer: Writer
    display: Display
    stop: agreement.Agreement
    mesh: Mesh
    folder: Path
    """The run's workdir."""
    profile: Profile | None = None
    """The epoch to trace, if any."""

    def place(self, state: TrainState) -> TrainState:
        """The state on every device; one placement from the first step on, so that nothing compiles twice."""
        return sharding.place(state, sharding.replicated(self.mesh))

    def note(self, name: str, message: str) -> None:
        """Puts an event on the record and on the screen."""
        _note(self.writer, self.display, name, message)


def _note(writer: Writer, display: Display, name: str, message: str) -> None:
    writer.append(EventRecord(name, message))
    display.message(message)


@contextmanager
def open_session(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    network: nn.Module,
    variables: Any | None,
    folder: Path,
    display: Display,
    profile: Profile | None = None,
) -> Iterator[Session]:
    """Opens the data, draws and records the subsets, and puts everything in its place on the devices.

    Args:
      experiment: with every open choice resolved.
      stages: what will be run.
      network: called as `network.apply(variables, images, train=...)`.
      variables: `{"params", "batch_stats"}` to start from, or None for random ones.
      folder: the run's workdir, locked by the caller.
      display: where progress is shown.
      profile: the epoch to trace, if any.
    """
    compile_cache.enable()
    with ExitStack() as stack:
        mesh = sharding.make_mesh()
        multihost.together(partial(check_batches, stages, mesh))
        multihost.together(partial(_check_single_images, stages, network, experiment.data.image_size))
        writer = stack.enter_context(Writer(folder, display.message) if multihost.is_first() else Discarding())
        clock = Clock()
        note = partial(_note, writer, display)
        dataset, train, test = _open_splits(experiment, stages, mesh, note, display)
        stack.callback(train.feed.close)
        drawn = multihost.in_turn(partial(_draw, experiment, stages, train, test, dataset, folder))
        optimizer = make_optimizer(experiment.optimizer)
        preprocessing = make_preprocessing(experiment.data.normalisation, experiment.data.image_size, train.histograms)
        shape, names = datasets.image_shape(dataset, experiment.data.image_size), dataset.class_names
        ours = Signature(preprocessing, shape, names, experiment.data.name)
        multihost.from_first(partial(signature.record, folder, ours))
        programs = Programs(
            network,
            optimizer,
            preprocessing,
            mesh,
            clock,
            partial(note, "compile"),
            deterministic=experiment.deterministic,
        )
        stack.callback(programs.close)
        yield Session(
            experiment=experiment,
            stages=stages,
            subsets=drawn,
            optimizer=optimizer,
            initial=_initializer(experiment, network, variables, optimizer, mesh),
            order=PlanOrder(experiment.seed, stages, [subset.rows for subset in drawn]),
            train=train.feed,
            test=test.feed,
            test_labels=test.labels,
            test_ids=test.ids,
            classes=dataset.class_names,
            programs=programs,
            clock=clock,
            checkpoints=stack.enter_context(Checkpoints(folder / CHECKPOINTS, experiment.checkpoint.keep)),
            writer=writer,
            display=display,
            stop=agreement.Agreement(stack.enter_context(stop_on_signals()), mesh),
            mesh=mesh,
            folder=folder,
            profile=profile if multihost.is_first() else None,
        )


def resolve(experiment: ExperimentConfig, recorded: ExperimentConfig | None) -> ExperimentConfig:
    """The experiment with what depends on the machine decided, as an earlier process of the run decided it."""
    if experiment.steps_per_call:
        return experiment
    chosen = recorded.steps_per_call if recorded else 1 if jax.default_backend() == "cpu" else 32
    return dataclasses.replace(experiment, steps_per_call=chosen)


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


def _open_splits(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    mesh: Mesh,
    note: Callable[[str, str], None],
    display: Display,
) -> tuple[Dataset, Split, Split]:
    dataset, delivered = open_data(experiment.data, mesh, display)
    note("delivery", delivered.reason)
    train, test = (open_split(experiment.data, dataset, split, delivered, mesh, display) for split in ("train", "test"))
    _check_size(experiment, stages, len(train.labels))
    return dataset, train, test


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
        if not multihost.is_first():
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
