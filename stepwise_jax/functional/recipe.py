"""The recipe of a run: the pure functions that a training step and its scores consist of."""

import contextlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import linen as nn

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig, LossConfig
from stepwise_jax.experiment.fields import type_matches, type_name
from stepwise_jax.experiment.functions import load
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.formatting import suggest
from stepwise_jax.functional.augmentation import AUGMENTATIONS, Augmentation, compose
from stepwise_jax.functional.losses import LOSSES, Loss, cross_entropy
from stepwise_jax.functional.metrics import METRICS, Metric, MetricFunction
from stepwise_jax.functional.networks import is_stochastic
from stepwise_jax.functional.optimizers import OPTIMIZERS, Optimizer, configure, inject, sgd
from stepwise_jax.functional.state import StateOptions, TrainState, make_initializer


@dataclass(frozen=True)
class Recipe:
    """What a researcher replaces. The defaults are the paper's."""

    optimizer: Optimizer = sgd
    """`learning_rate, **hyperparameters -> optax.GradientTransformation`."""
    loss: Loss = field(default_factory=cross_entropy)
    """`logits [b, C], targets -> [b]`; targets are classes int [b], or probabilities [b, C] after mixup."""
    augment: Augmentation | None = None
    """`key, images float32 [b, H, W, 3] in 0..1, labels int [b] -> images, targets`; None changes nothing."""
    metrics: Mapping[str, Metric | MetricFunction] = field(default_factory=dict)
    """Scores beside top-1, top-5 and loss: `logits float32 [b, C], labels int [b] -> [b]`, whose mean is recorded."""
    clip_norm: float | None = None
    """Largest global norm of the gradients."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights, if there is to be one."""


def make_recipe(experiment: ExperimentConfig, num_classes: int) -> Recipe:
    """Return the recipe that an experiment's `optimizer`, `loss`, `data.augmentation` and `evaluation.metrics` name.

    Raises:
      InputError: for an unknown augmentation or metric, or a value that one does not take.
    """
    return Recipe(
        optimizer=configure(experiment.optimizer),
        loss=_loss(experiment.loss),
        augment=_augmentation(experiment.data.augmentation, num_classes),
        metrics=_metrics(experiment.evaluation.metrics),
        clip_norm=experiment.optimizer.clip_norm,
        ema_decay=experiment.optimizer.ema_decay,
    )


def with_recipe(experiment: ExperimentConfig, recipe: Recipe) -> ExperimentConfig:
    """Return the experiment with what a recipe has other than its defaults.

    Raises:
      InputError: for something else than a recipe, or a part of one that cannot be used.
    """
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe is a {type(recipe).__name__}: it must be a stepwise_jax.Recipe")
    changes: dict[str, Any] = {}
    if recipe.optimizer is not sgd:
        names = {function: name for name, function in OPTIMIZERS.items()}
        changes["optimizer.name"] = names.get(recipe.optimizer, recipe.optimizer)
    if not _is_plain(recipe.loss):
        changes["loss.name"] = recipe.loss
    if recipe.augment is not None:
        changes["data.augmentation"] = recipe.augment
    if recipe.metrics:
        names = isinstance(recipe.metrics, Mapping)
        require(names, "recipe.metrics", recipe.metrics, "a dictionary of functions by name")
        changes["evaluation.metrics"] = dict(recipe.metrics)
    for name in ("clip_norm", "ema_decay"):
        if getattr(recipe, name) is not None:
            changes[f"optimizer.{name}"] = getattr(recipe, name)
    return override_fields(experiment, changes)


def _is_plain(loss: Loss) -> bool:
    """Whether a loss is the default."""
    plain = cross_entropy()
    made = (getattr(each, "func", None) for each in (loss, plain))
    return next(made) is next(made) and loss.keywords == plain.keywords  # pyright: ignore


def state_options(recipe: Recipe, network: nn.Module, image_size: int) -> StateOptions:
    """Return what the states of a run have: a key if its steps draw random numbers, averages if the recipe has them."""
    random = recipe.augment is not None or is_stochastic(network, image_size)
    return StateOptions(random, recipe.ema_decay is not None)


def make_state_initializer(
    experiment: ExperimentConfig, network: nn.Module, num_classes: int
) -> Callable[[jax.Array], TrainState]:
    """Return `make_initializer`'s function for an experiment."""
    config, size = experiment.optimizer, experiment.data.image_size
    # Without loss and metrics, which whoever uses a trained network does not need: their files may be gone.
    recipe = Recipe(
        configure(config),
        augment=_augmentation(experiment.data.augmentation, num_classes),
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay,
    )
    options = state_options(recipe, network, size)
    return make_initializer(network, inject(recipe.optimizer, recipe.clip_norm), size, options)


def _loss(config: LossConfig) -> Loss:
    if callable(config.name):
        return load(config.name)
    options: dict[str, Any] = {"label_smoothing": config.label_smoothing}
    return LOSSES[config.name](**options | ({"gamma": config.gamma} if config.name == "focal" else {}))


def _augmentation(given: tuple[str, ...] | Callable[..., Any], num_classes: int) -> Augmentation | None:
    if callable(given):
        # Not loaded: whoever scores or uses a trained network does not need it.
        return given
    made = [_named_augmentation(word, num_classes) for word in given]
    return compose(*made) if made else None


def _named_augmentation(word: str, num_classes: int) -> Augmentation:
    """The augmentation that `flip`, `crop:4`, `crop:4:reflect` or `mixup:0.2` describes."""
    name, *values = word.split(":")
    if name not in AUGMENTATIONS:
        near = suggest(name, AUGMENTATIONS)
        raise InputError(f"data.augmentation is {word!r}: it must be one of {', '.join(AUGMENTATIONS)}{near}")
    needed = {"num_classes": num_classes} if name in ("mixup", "cutmix") else {}
    try:
        return AUGMENTATIONS[name](*_arguments(AUGMENTATIONS[name], values), **needed)
    except InputError as error:
        raise InputError(f"data.augmentation is {word!r}: {error}") from error


def _arguments(function: Callable[..., Any], values: Sequence[str]) -> list[Any]:
    """The arguments of an augmentation, from words, by the types that it declares."""
    hints = typing.get_type_hints(function)
    names = [each.name for each in inspect.signature(function).parameters.values() if each.kind != each.KEYWORD_ONLY]
    if len(values) > len(names):
        raise InputError(f"{function.__name__} takes {' and '.join(names) or 'nothing'} after it")
    return [_parse(name, hints[name], value) for name, value in zip(names, values, strict=False)]


def _parse(name: str, hint: Any, text: str) -> Any:
    value: Any = text
    if hint in (int, float):
        with contextlib.suppress(ValueError):
            value = hint(text)
    require(type_matches(value, hint), name, value, type_name(hint))
    return value


def _metrics(given: Any) -> dict[str, Metric | MetricFunction]:
    if isinstance(given, Mapping):
        return {name: load(function) for name, function in given.items()}
    unknown = [name for name in given if name not in METRICS]
    if unknown:
        near = suggest(unknown[0], METRICS)
        raise InputError(f"evaluation.metrics is {unknown[0]!r}: it must be one of {', '.join(METRICS)}{near}")
    return {name: METRICS[name] for name in given}
