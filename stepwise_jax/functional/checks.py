"""Checks of a recipe before training, from shapes alone: one sentence instead of an error in the middle of a run."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.experiment.serialization import function_name
from stepwise_jax.functional.metrics import as_metric
from stepwise_jax.functional.networks import check_output
from stepwise_jax.functional.optimizers import hyperparameters
from stepwise_jax.functional.recipe import Recipe
from stepwise_jax.plans.stage import Stage

_EXAMPLES = 2
"""Examples of the batch that the functions are tried with."""


def check_recipe(
    recipe: Recipe, network: nn.Module, stages: Sequence[Stage], num_classes: int, image_size: int
) -> None:
    """Check that the functions of a recipe fit together and take what the stages set.

    Raises:
      InputError: names the function or the stage that does not fit.
    """
    _check_hyperparameters(recipe, stages)
    targets = _check_augmentation(recipe, num_classes, image_size)
    _check_loss(recipe, targets, num_classes)
    _check_metrics(recipe, num_classes)
    for size in sorted({stage.image_size for stage in stages if stage.image_size} - {image_size}):
        check_output(network, num_classes, size)


def check_single_images(stages: tuple[Stage, ...], network: nn.Module, image_size: int) -> None:
    """Refuse batches of one image if the network shrinks its maps to one value per channel, whose variance is zero."""
    single = [f"{number} ({stage.name})" for number, stage in enumerate(stages, 1) if stage.batch_size == 1]
    if not single:
        return
    image, key = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32), jax.random.key(0)
    variables = jax.eval_shape(partial(network.init, train=False), key, image)
    try:
        apply = partial(network.apply, train=True, mutable=["batch_stats"], rngs={"params": key})
        jax.eval_shape(apply, variables, image)
    except ValueError as error:
        raise InputError(f"batch_size of stage {single[0]} is 1: {error}") from error


def _check_hyperparameters(recipe: Recipe, stages: Sequence[Stage]) -> None:
    taken = [*hyperparameters(recipe.optimizer), *(["clip_norm"] if recipe.clip_norm is not None else [])]
    for number, stage in enumerate(stages, start=1):
        for name in stage.hyperparameters:
            if name not in taken:
                raise InputError(
                    f"hyperparameters of stage {number} ({stage.name}) sets {name!r}, which the optimizer "
                    f"{function_name(recipe.optimizer)} does not take: it takes {', '.join(taken) or 'none'}"
                )


def _check_augmentation(recipe: Recipe, num_classes: int, image_size: int) -> Any:
    """Return the targets of the loss, as shapes."""
    labels = jax.ShapeDtypeStruct((_EXAMPLES,), np.int32)
    if recipe.augment is None:
        return labels
    name, images = _name(recipe.augment), jax.ShapeDtypeStruct((_EXAMPLES, image_size, image_size, 3), np.float32)
    made = _shapes(f"the augmentation {name}", recipe.augment, jax.random.key(0), images, labels)
    if not isinstance(made, tuple) or len(made) != 2:
        raise InputError(f"the augmentation {name} must return images and targets")
    after, targets = made
    if (after.shape, after.dtype) != (images.shape, images.dtype):
        raise InputError(f"the augmentation {name} turns images {_text(images)} into {_text(after)}")
    hard, soft = targets.shape == (_EXAMPLES,), targets.shape == (_EXAMPLES, num_classes)
    if not (soft and jnp.issubdtype(targets.dtype, jnp.floating)) and not (
        hard and jnp.issubdtype(targets.dtype, jnp.integer)
    ):
        expected = f"classes int32[{_EXAMPLES}] or probabilities float32[{_EXAMPLES},{num_classes}]"
        raise InputError(f"the augmentation {name} returns targets {_text(targets)}: they must be {expected}")
    return targets


def _check_loss(recipe: Recipe, targets: Any, num_classes: int) -> None:
    name, logits = _name(recipe.loss), jax.ShapeDtypeStruct((_EXAMPLES, num_classes), np.float32)
    value = _shapes(f"the loss {name}", recipe.loss, logits, targets)
    if getattr(value, "shape", None) != (_EXAMPLES,) or not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(
            f"the loss {name} returns {_text(value)} for logits {_text(logits)}: "
            f"it must return one number for each example, float32[{_EXAMPLES}]"
        )


def _check_metrics(recipe: Recipe, num_classes: int) -> None:
    logits = jax.ShapeDtypeStruct((_EXAMPLES, num_classes), np.float32)
    labels = jax.ShapeDtypeStruct((_EXAMPLES,), np.int32)
    for name, metric in recipe.metrics.items():
        if name in ("top1", "top5", "loss") or name.startswith("ema_") or not name.isidentifier():
            raise InputError(f"evaluation.metrics has {name!r}: it must be a Python name, and not top1, top5 or loss")
        value = _shapes(f"the metric {name}", as_metric(metric).per_example, logits, labels)
        if getattr(value, "shape", ())[:1] != (_EXAMPLES,):
            raise InputError(
                f"the metric {name} returns {_text(value)} for logits {_text(logits)}: it must return one value for "
                f"each example, float32[{_EXAMPLES}], so that it can be summed exactly"
            )


def _shapes(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return jax.eval_shape(partial(function), *arguments)
    except Exception as error:
        raise InputError(f"{what} fails on a batch of {_EXAMPLES} examples: {describe_error(error)}") from error


def _name(function: Callable[..., Any]) -> str:
    return function_name(function).lstrip("_")


def _text(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return type(value).__name__
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"
