"""Training from Python: an experiment, a network and a recipe in, records out."""

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from flax import linen as nn

from stepwise_jax.data import datasets
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.formatting import parse_path
from stepwise_jax.functional.checks import check_functions
from stepwise_jax.functional.networks import build_network, check_output, is_shipped
from stepwise_jax.functional.recipe import Recipe, with_recipe
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.process import check_jax_settings
from stepwise_jax.runtime.signals import with_own_handlers
from stepwise_jax.training import loop
from stepwise_jax.training.progress import Observer
from stepwise_jax.workdir.records import Record


def train(
    experiment: ExperimentConfig,
    network: nn.Module | None = None,
    *,
    workdir: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    observers: Sequence[Observer] = (),
    variables: Any | None = None,
) -> Iterator[Record]:
    """Train in the stages of `experiment.plan`, or resume the run in `workdir`, while the caller reads its records.

    A caller that stops reading ends the run after a checkpoint; the same call resumes it. So does the first SIGINT,
    SIGTERM, SIGHUP or SIGUSR1 while the iterator works; a second SIGINT is a `KeyboardInterrupt`.

    Args:
      experiment: the data, the plan, and what else determines the result.
      network: called as `network.apply(variables, images [b, H, W, 3], train=...)`, with logits [b, C] as its result;
        by default the one that `experiment.model` names.
      workdir: the folder of the run, new or stopped; None leaves nothing on disk.
      recipe: the optimizer, the loss, the augmentation and the metrics; by default those that `experiment` names.
      observers: functions of a record, called as soon as it is made.
      variables: `{"params", "batch_stats"}` to start from; random ones from the seed by default.

    Returns:
      An iterator of records (`stepwise_jax.workdir.records`), by `kind`; that of the kind "summary" is the last.

    Raises:
      InputError: at once, if anything given cannot be used; later errors are those of `loop.iterate`.
    """
    _check_observers(observers)
    check_jax_settings()
    folder = None if workdir is None else _folder(workdir)
    parts = multihost.on_all_processes(partial(_prepare, experiment, network, recipe))
    return _in_folder(partial(loop.iterate, *parts, observers=observers, variables=variables), folder)


def _prepare(
    experiment: ExperimentConfig, network: nn.Module | None, recipe: Recipe | None
) -> tuple[ExperimentConfig, tuple[Stage, ...], nn.Module]:
    """Return the experiment that is really trained, its stages and its network, all of which fit together."""
    experiment = with_recipe(experiment, recipe) if recipe else experiment
    sizes = datasets.sizes(experiment.data)
    if network is not None:
        experiment = _with_network(experiment, network, sizes.num_classes)
    network = build_network(experiment, sizes.num_classes) if network is None else network
    stages = make_plan(experiment.plan, sizes.train, experiment.optimizer)
    check_functions(experiment, stages, network, sizes.num_classes)
    return experiment, stages, network


def _check_observers(observers: Sequence[Observer]) -> None:
    unusable = [observer for observer in observers if not callable(observer)]
    if unusable:
        raise InputError(f"observers has {unusable[0]!r}: it must be a function of a record")


def _with_network(experiment: ExperimentConfig, network: nn.Module, num_classes: int) -> ExperimentConfig:
    """Return the experiment with the name of the network that is really trained."""
    if not isinstance(network, nn.Module):
        raise InputError(f"network is a {type(network).__name__}: it must be a flax.linen.Module")
    check_output(network, num_classes, experiment.data.image_size)
    if _is_named(experiment, network, num_classes):
        return experiment
    fields = {item.name: getattr(network, item.name) for item in dataclasses.fields(network) if item.init}
    given = {name: value for name, value in fields.items() if name not in ("parent", "name", "num_classes")}
    model = dataclasses.replace(experiment.model, name=partial(type(network), **given))
    return dataclasses.replace(experiment, model=model)


def _is_named(experiment: ExperimentConfig, network: nn.Module, num_classes: int) -> bool:
    """Whether `model` describes this network."""
    if not is_shipped(network):
        return False
    try:
        return build_network(experiment, num_classes) == network
    except InputError:
        return False


def _folder(workdir: str | os.PathLike[str]) -> Path:
    try:
        return parse_path(os.fspath(workdir))
    except (TypeError, ValueError) as error:
        raise InputError(f"workdir: {error}") from error


def _in_folder(run: Any, folder: Path | None) -> Iterator[Record]:
    with ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stepwise-jax-")))
        yield from with_own_handlers(run(folder))
