"""The device memory that a plan needs, from its compiled training steps, before any run.

Everything is abstract: no image is read and no weight is initialised. The numbers are XLA's, for one device.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from stepwise_jax.data import datasets, placement
from stepwise_jax.data.batches import ResidentSplit, check_batch_sizes
from stepwise_jax.data.loaders import Loader, ResidentLoader, StreamingLoader
from stepwise_jax.data.placement import Placement
from stepwise_jax.data.progress import ProgressCallback, progress_meter
from stepwise_jax.data.sampler import steps_in_call
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig
from stepwise_jax.functional.optimizers import inject
from stepwise_jax.functional.preprocessing import make_preprocessing
from stepwise_jax.functional.recipe import make_recipe, make_state_initializer
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import sharding
from stepwise_jax.training.programs.step_functions import jit_train_call, step_options


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes on one device for training with one batch size."""

    batch_size: int
    stages: tuple[str, ...]
    """Names of the stages with this batch size."""
    steps: int
    """Optimiser steps in one call."""
    arguments: int
    """State, resident training images, and the inputs of a call."""
    output: int
    donated: int
    """The part of the output that reuses the memory of arguments."""
    temporaries: int
    """Activations, gradients and other temporary arrays of a call."""
    code: int
    total: int
    """All of these, with the resident test images and the copy of the state from which a checkpoint is written."""


class ImageStorage(NamedTuple):
    """How many images there are, their shape, and where they are kept."""

    shape: tuple[int, int, int]
    """Height, width and channels of an image, as stored or streamed."""
    train: int
    """Number of training images."""
    test: int
    """Number of test images."""
    placement: Placement


def measure(
    experiment: ExperimentConfig,
    stages: Sequence[Stage],
    network: nn.Module,
    progress: ProgressCallback = lambda *_: None,
) -> dict[str, Any]:
    """Return the document of `plan --memory`: a footprint for each batch size, and the memory of the device.

    Args:
      experiment: with `steps_per_call` resolved.
      stages: the plan.
      network: called as `network.apply(variables, images, train=...)`.
      progress: called as `progress(done, total, task)`.

    Raises:
      InputError: if a batch size does not divide evenly among the devices.
    """
    mesh = sharding.make_mesh()
    check_batch_sizes(stages, mesh)
    images, state = _image_storage(experiment.data, mesh), _abstract_state(experiment, network, mesh)
    programs: dict[Any, list[Stage]] = {}
    for stage in stages:
        programs.setdefault((stage.batch_size, step_options(stage)), []).append(stage)
    footprints = []
    with progress_meter(progress, len(programs), "compiling a training step for each batch size") as meter:
        for each in programs.values():
            footprints.append(_footprint(experiment, each, network, state, images, mesh))
            meter.advance()
    return {
        "batches": [dataclasses.asdict(each) for each in footprints],
        "state": _bytes(state),
        "resident_images": _resident_bytes(images, images.train + images.test, mesh),
        "delivery": images.placement.reason,
        "device_memory": placement.device_memory(),
    }


def _image_storage(data: DataConfig, mesh: Mesh) -> ImageStorage:
    sizes = datasets.sizes(data)
    try:
        shape = datasets.image_shape(datasets.open_dataset(data), data.image_size)
    except InputError:
        # Not prepared yet: images are scaled to the network's input size, unless they are smaller.
        shape = (data.image_size, data.image_size, 3)
    needed = (sizes.train + sizes.test) * int(np.prod(shape))
    return ImageStorage(
        shape,
        sizes.train,
        sizes.test,
        placement.choose_placement(data.delivery, needed, placement.device_memory(), mesh.size),
    )


def _abstract_state(experiment: ExperimentConfig, network: nn.Module, mesh: Mesh) -> TrainState:
    create = make_state_initializer(experiment, network, datasets.sizes(experiment.data).num_classes)
    whole = sharding.replicated(mesh)
    shapes = jax.eval_shape(create, jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes)


def _footprint(
    experiment: ExperimentConfig,
    stages: Sequence[Stage],
    network: nn.Module,
    state: TrainState,
    images: ImageStorage,
    mesh: Mesh,
) -> Footprint:
    stage = stages[0]
    steps = steps_in_call(stage.updates_per_epoch, experiment.steps_per_call)
    loader = _abstract_loader(images, mesh)
    memory = _compile(experiment, network, state, loader, steps, stage, mesh).memory_analysis()
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "output": memory.output_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    outside_call = _resident_bytes(images, images.test, mesh) + _bytes(state)
    total = sum(parts.values()) - memory.alias_size_in_bytes + outside_call
    names = tuple(each.name for each in stages)
    return Footprint(stage.batch_size, names, steps, donated=memory.alias_size_in_bytes, total=total, **parts)


def _abstract_loader(images: ImageStorage, mesh: Mesh) -> Loader:
    if images.placement.kind == "streamed":
        return StreamingLoader(lambda rows: rows, np.empty(0, np.int32), images.shape, mesh, 1)
    sharded = images.placement.kind == "sharded"
    place = sharding.split_along(mesh, 0) if sharded else sharding.replicated(mesh)
    count = -(-images.train // mesh.size) * mesh.size if sharded else images.train
    pixels = jax.ShapeDtypeStruct((count, *images.shape), np.uint8, sharding=place)
    labels = jax.ShapeDtypeStruct((images.train,), np.int32, sharding=sharding.replicated(mesh))
    return ResidentLoader(ResidentSplit(pixels, labels), mesh)  # pyright: ignore[reportArgumentType]


def _compile(
    experiment: ExperimentConfig,
    network: nn.Module,
    state: Any,
    loader: Loader,
    steps: int,
    stage: Stage,
    mesh: Mesh,
) -> Any:
    """Compile the training call of a run (`compilation.CompiledFunctions`) from shapes alone."""
    # The constants of a normalisation by the data set are not known yet, and take no memory.
    normalisation = "none" if experiment.data.normalisation == "dataset" else experiment.data.normalisation
    preprocessing = make_preprocessing(normalisation, experiment.data.image_size, None)
    recipe = make_recipe(experiment, datasets.sizes(experiment.data).num_classes)
    optimizer, options = inject(recipe.optimizer, recipe.clip_norm), step_options(stage)
    function = jit_train_call(network, optimizer, preprocessing, mesh, recipe=recipe, options=options)
    return function.lower(state, loader.examples, loader.abstract_inputs(steps, stage.batch_size)).compile()


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _resident_bytes(images: ImageStorage, count: int, mesh: Mesh) -> int:
    """Return the bytes of `count` images and their labels on one device."""
    if images.placement.kind == "streamed":
        return 0
    share = -(-count // mesh.size) if images.placement.kind == "sharded" else count
    return share * int(np.prod(images.shape)) + 4 * count
