"""Checks of a recipe before training, from shapes alone: one sentence instead of an error in the middle of a run."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.experiment.config import ExperimentConfig, OptimizerConfig
from stepwise_jax.experiment.functions import describe_function, is_library_function, load
from stepwise_jax.experiment.serialization import function_name
from stepwise_jax.functional.boundary import BoundaryRule
from stepwise_jax.functional.metrics import Metric, as_metric
from stepwise_jax.functional.networks import abstract_key, build_network, is_shipped
from stepwise_jax.functional.optimizers import hyperparameters, inject
from stepwise_jax.functional.recipe import Recipe, make_recipe, make_state_initializer
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage

_EXAMPLES = 2
"""Examples of the batch that the functions are tried with."""


def check_experiment(experiment: ExperimentConfig, stages: Sequence[Stage], num_classes: int) -> None:
    """Check an experiment's network and functions without starting a device; no stages stand for any.

    Raises:
      InputError: if the network cannot be built, or a function does not fit.
    """
    check_functions(experiment, stages, build_network(experiment, num_classes), num_classes)


def check_functions(
    experiment: ExperimentConfig, stages: Sequence[Stage], network: nn.Module, num_classes: int
) -> None:
    """Check, before a workdir records the experiment, that its functions fit together.

    Raises:
      InputError: names the function that does not fit.
    """
    _check_pixels(experiment, stages)
    rule = experiment.plan.carry
    check_recipe(make_recipe(experiment, num_classes), network, stages, num_classes, experiment.data.image_size)
    if callable(rule) and len(stages) > 1:
        check_boundary_rule(load(rule), make_state_initializer(experiment, network, num_classes))


_MOST_PIXELS = 1 << 31
"""JAX counts the pixels over which batch normalisation takes its means in 32 bits."""


def _check_pixels(experiment: ExperimentConfig, stages: Sequence[Stage]) -> None:
    size = experiment.data.image_size
    batches = [("evaluation.batch_size", experiment.evaluation.batch_size, size)]
    for number, stage in enumerate(stages, start=1):
        field = f"batch_size of stage {number} ({stage.name})"
        batches.append((field, stage.batch_size // stage.microbatches, stage.image_size or size))
    for field, count, size in batches:
        if count * size**2 >= _MOST_PIXELS:
            raise InputError(
                f"{field} has {count} images of {size} x {size} pixels at a time: together they must have fewer than "
                f"{_MOST_PIXELS:,}, so at most {(_MOST_PIXELS - 1) // size**2}"
            )


def check_recipe(
    recipe: Recipe, network: nn.Module, stages: Sequence[Stage], num_classes: int, image_size: int
) -> None:
    """Check that the functions of a recipe fit together and take what the stages set.

    Raises:
      InputError: names the function or the stage that does not fit.
    """
    _check_hyperparameters(recipe, stages)
    _check_image_sizes(network, stages, num_classes, image_size)
    _check_optimizer(recipe, network, image_size)
    for size in sorted({stage.image_size or image_size for stage in stages} or {image_size}):
        targets = _check_augmentation(recipe, num_classes, size)
        _check_loss(recipe, targets, num_classes)
    _check_metrics(recipe, num_classes)


def check_boundary_rule(rule: BoundaryRule, make_state: Callable[[jax.Array], TrainState]) -> None:
    """Check that a rule of stage boundaries returns a state like the one that it gets.

    Args:
      rule: `state, make_initial_state -> state`.
      make_state: makes the state before the first step from a random key.

    Raises:
      InputError: names what differs.
    """
    state, name = jax.eval_shape(make_state, abstract_key()), _name(rule)
    try:
        after = jax.eval_shape(lambda state, initial: rule(state, lambda: initial), state, state)
    except Exception as error:
        raise InputError(f"plan.carry: {name}(state, make_initial_state) failed: {describe_error(error)}") from error
    if not isinstance(after, TrainState):
        raise InputError(f"plan.carry: {name} returned {_text(after)}: it must return a TrainState")
    before, made = (
        {jax.tree_util.keystr(path): _text(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(each)}
        for each in (state, after)
    )
    for path in (*before, *made):
        old, new = before.get(path, "missing"), made.get(path, "missing")
        if old != new:
            raise InputError(f"plan.carry: {name} changes state{path} from {old} to {new}")


def check_single_images(stages: tuple[Stage, ...], network: nn.Module, image_size: int) -> None:
    """Refuse batches of one image if the network shrinks its maps to one value per channel, whose variance is zero."""
    for number, stage in enumerate(stages, start=1):
        if stage.batch_size == stage.microbatches:
            _check_single_image(f"of stage {number} ({stage.name})", stage, network, stage.image_size or image_size)


def _check_single_image(where: str, stage: Stage, network: nn.Module, size: int) -> None:
    image, key = _images(1, size), abstract_key()
    variables = jax.eval_shape(partial(network.init, train=False), key, image)
    try:
        apply = partial(network.apply, train=True, mutable=["batch_stats"])
        jax.eval_shape(lambda key, *inputs: apply(*inputs, rngs={"params": key}), key, variables, image)
    except ValueError as error:
        field, value = ("batch_size", 1) if stage.microbatches == 1 else ("microbatches", stage.microbatches)
        raise InputError(f"{field} {where} is {value}: {error}") from error


def _images(count: int, size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, size, size, 3), np.float32)


def _check_image_sizes(network: nn.Module, stages: Sequence[Stage], num_classes: int, image_size: int) -> None:
    sizes = {stage.image_size: f"{number} ({stage.name})" for number, stage in enumerate(stages, start=1)}
    for size, stage in sizes.items():
        fault = None if size in (None, image_size) else _find_fault(network, num_classes, image_size, size)
        if fault:
            raise InputError(f"image_size of stage {stage} is {size}: {fault}")


def _find_fault(network: nn.Module, num_classes: int, image_size: int, size: int) -> str | None:
    """Say why a network with weights for images of `image_size` does not take those of `size`."""
    name, images = type(network).__name__, _images(_EXAMPLES, size)
    try:
        if is_shipped(network):
            # It takes all that are not too small, and tracing a large network takes seconds.
            return network.check(images)  # pyright: ignore[reportAttributeAccessIssue]
        like = _images(_EXAMPLES, image_size)
        variables = jax.eval_shape(partial(network.init, train=False), abstract_key(), like)
        logits: Any = jax.eval_shape(partial(network.apply, train=False), variables, images)
    except Exception as error:
        return f"{name} does not take such images: {describe_error(error)}"
    return None if logits.shape == (_EXAMPLES, num_classes) else f"{name} turns such images into {_text(logits)}"


def _check_hyperparameters(recipe: Recipe, stages: Sequence[Stage]) -> None:
    taken = [*hyperparameters(recipe.optimizer), *(["clip_norm"] if recipe.clip_norm is not None else [])]
    for number, stage in enumerate(stages, start=1):
        for field, name in _set_by(stage):
            if name not in taken:
                raise InputError(
                    f"{field} of stage {number} ({stage.name}) sets {name!r}, which the optimizer "
                    f"{function_name(recipe.optimizer)} does not take: it takes {', '.join(taken) or 'none'}"
                )


def _check_optimizer(recipe: Recipe, network: nn.Module, image_size: int) -> None:
    if is_library_function(recipe.optimizer):
        return
    name = function_name(recipe.optimizer)
    params = jax.eval_shape(partial(network.init, train=False), abstract_key(), _images(1, image_size))["params"]
    try:
        optimizer = inject(recipe.optimizer, recipe.clip_norm)
        jax.eval_shape(lambda params: optimizer.update(params, optimizer.init(params), params), params)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the optimizer {name} fails: {describe_error(error)}; it must return an optax.GradientTransformation, and "
            "each of its arguments but learning_rate needs a default"
        ) from error


def _set_by(stage: Stage) -> list[tuple[str, str]]:
    """The fields of a stage that set a hyperparameter, and its name; a default of the configuration sets nothing."""
    defaults = OptimizerConfig()
    own = [name for name in ("momentum", "weight_decay") if getattr(stage, name) not in (None, getattr(defaults, name))]
    return [*((name, name) for name in own), *(("hyperparameters", name) for name in stage.hyperparameters)]


def _check_augmentation(recipe: Recipe, num_classes: int, image_size: int) -> Any:
    """Return the targets of the loss, as shapes."""
    labels = jax.ShapeDtypeStruct((_EXAMPLES,), np.int32)
    if recipe.augment is None:
        return labels
    name, images = _name(recipe.augment), _images(_EXAMPLES, image_size)
    made = _shapes(f"the augmentation {name}", recipe.augment, abstract_key(), images, labels)
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
        whole = as_metric(metric)
        value = _shapes(f"the metric {name}", whole.per_example, logits, labels)
        shape = getattr(value, "shape", ())
        if shape[:1] != (_EXAMPLES,) or (len(shape) > 1 and not isinstance(metric, Metric)):
            raise InputError(
                f"the metric {name} returns {_text(value)} for logits {_text(logits)}: it must return one value for "
                f"each example, float32[{_EXAMPLES}], so that it can be summed exactly"
            )
        _check_score(name, whole, shape[1:])


def _check_score(name: str, metric: Metric, shape: tuple[int, ...]) -> None:
    """Check that `from_sums` makes one number of sums [...]."""
    try:
        with np.errstate(all="ignore"):
            float(metric.from_sums(np.ones(shape), _EXAMPLES))
    except Exception as error:
        raise InputError(
            f"the metric {name} makes no number of sums {list(shape)} over {_EXAMPLES} examples: "
            f"{describe_error(error)}"
        ) from error


def _shapes(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return jax.eval_shape(partial(function), *arguments)
    except Exception as error:
        raise InputError(f"{what} fails on a batch of {_EXAMPLES} examples: {describe_error(error)}") from error


def _name(function: Callable[..., Any]) -> str:
    """The name of a function, or of the one that made it."""
    record = describe_function(function)
    return record.name.partition(".<locals>")[0] if record.file is None else function_name(function)


def _text(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return type(value).__name__
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"
