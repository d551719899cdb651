"""The sentences about functions that do not fit, from shapes alone."""

import dataclasses
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from conftest import TinyNet
from flax import linen as nn

import models
from stepwise_jax import augmentation, losses, metrics
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig, EvaluationConfig, ExperimentConfig
from stepwise_jax.functional.boundary import BOUNDARY_RULES, shrink_perturb
from stepwise_jax.functional.checks import check_boundary_rule, check_functions, check_recipe, check_single_images
from stepwise_jax.functional.networks import check_output
from stepwise_jax.functional.optimizers import adamw
from stepwise_jax.functional.recipe import Recipe, make_recipe, make_state_initializer
from stepwise_jax.plans.stage import Stage


class Pooled(nn.Module):
    """A network for images of any size, or with `pixels` of no other."""

    num_classes: int = 10
    pixels: int = 0
    cut: int = 0

    @nn.compact
    def __call__(self, images, train):
        if self.pixels and images.shape[1] != self.pixels:
            raise ValueError(f"{self.pixels} pixels only")
        logits = nn.Dense(self.num_classes)(images.mean(axis=(1, 2)))
        return logits if images.shape[1] == 8 else logits[:, self.cut :]


def stage(**fields):
    return Stage("A", 1.0, 100, 10, 0.1, 2, **fields)


def refusal(recipe=None, network=None, **fields):
    with pytest.raises(InputError) as refused:
        check_recipe(recipe or Recipe(), network or Pooled(), (stage(), stage(**fields)), 10, 8)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_shipped_fits():
    for augment in (augmentation.flip_and_crop(2, "reflect"), augmentation.mixup(num_classes=10)):
        for loss in (losses.cross_entropy(0.1), losses.focal(), losses.binary_cross_entropy()):
            recipe = Recipe(adamw, loss, augment, {"ece": metrics.expected_calibration_error()}, clip_norm=1.0)
            check_recipe(recipe, Pooled(), (stage(), stage(image_size=4, hyperparameters={"b2": 0.9})), 10, 8)


def test_a_stage_sets_only_what_the_optimizer_takes():
    said = refusal(Recipe(partial(adamw, b1=0.8)), hyperparameters={"nesterov": 1.0})
    assert said.startswith("hyperparameters of stage 2 (A) sets 'nesterov', which the optimizer adamw does not take")


def test_a_momentum_that_a_strategy_sets_for_an_optimizer_without_one_is_named():
    said = refusal(Recipe(adamw), momentum=0.5)
    assert said.startswith("momentum of stage 2 (A) sets 'momentum', which the optimizer adamw does not take")
    assert said.endswith("it takes b1, b2, eps, weight_decay")


def test_an_optimizer_takes_a_learning_rate_first():
    def without_rate(momentum=0.9):
        return optax.sgd(0.1, momentum)

    assert refusal(Recipe(without_rate)) == "optimizer.name: the first argument of without_rate must be learning_rate"


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda logits, targets: logits.mean(), "returns float32[] for logits float32[2,10]"),
        (lambda logits, targets: logits, "returns float32[2,10] for logits float32[2,10]"),
        (lambda logits, targets: targets, "returns int32[2] for logits"),
        (lambda logits, targets: None, "returns NoneType for logits"),
        (lambda logits: logits[:, 0], "fails on a batch of 2 examples: TypeError"),
    ],
)
def test_a_loss_returns_one_number_for_each_example(loss, message):
    said = refusal(Recipe(loss=loss))
    assert said.startswith("the loss <lambda> ")
    assert message in said


def test_a_loss_takes_the_targets_that_an_augmentation_makes():
    def hard(logits, targets):
        return -jax.nn.log_softmax(logits)[jnp.arange(len(targets)), targets]

    check_recipe(Recipe(loss=hard), Pooled(), (stage(),), 10, 8)
    assert "the loss hard fails" in refusal(Recipe(loss=hard, augment=augmentation.mixup(num_classes=10)))


def failing(key, images, labels):
    raise ZeroDivisionError("no\nway")


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda key, images, labels: (images[:1], labels), "turns images float32[2,8,8,3] into float32[1,8,8,3]"),
        (lambda key, images, labels: (images.astype("bfloat16"), labels), "into bfloat16[2,8,8,3]"),
        (lambda key, images, labels: (images[:, 1:], labels), "into float32[2,7,8,3]"),
        (lambda key, images, labels: images, "must return images and targets"),
        (lambda key, images, labels: (images, labels[:1]), "returns targets int32[1]: they must be classes int32[2]"),
        (lambda key, images, labels: (images, jnp.zeros((2, 3))), "or probabilities float32[2,10]"),
        (failing, "the augmentation failing fails on a batch of 2 examples: ZeroDivisionError: no"),
    ],
)
def test_an_augmentation_changes_neither_the_batch_nor_its_type(augment, message):
    assert message in refusal(Recipe(augment=augment))


def test_an_augmentation_is_tried_at_the_image_size_of_each_stage():
    def pad(key, images, labels):
        return jnp.pad(images, ((0, 0), (0, 8 - images.shape[1]), (0, 8 - images.shape[2]), (0, 0))), labels

    check_recipe(Recipe(augment=pad), Pooled(), (stage(),), 10, 8)
    assert "the augmentation pad turns images float32[2,4,4,3]" in refusal(Recipe(augment=pad), image_size=4)


@pytest.mark.parametrize(
    ("name", "metric", "message"),
    [
        ("mine", lambda logits, labels: logits.mean(), "the metric mine returns float32[] for logits float32[2,10]"),
        ("mine", lambda logits, labels: logits[0], "the metric mine returns float32[10]"),
        ("mine", lambda logits, labels: labels.undefined, "the metric mine fails on a batch of 2 examples"),
        ("top1", lambda logits, labels: labels, "evaluation.metrics has 'top1'"),
        ("ema_x", lambda logits, labels: labels, "evaluation.metrics has 'ema_x'"),
        ("a b", lambda logits, labels: labels, "evaluation.metrics has 'a b': it must be a Python name"),
    ],
)
def test_a_metric_returns_one_value_for_each_example(name, metric, message):
    assert message in refusal(Recipe(metrics={name: metric}))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Pooled(pixels=8), "is 4: Pooled does not take such images: ValueError: 8 pixels only"),
        (TinyNet(), "is 4: TinyNet does not take such images: ScopeParamShapeError"),
        (Pooled(cut=1), "is 4: Pooled turns such images into float32[2,9]"),
    ],
)
def test_a_network_takes_the_images_of_each_stage(network, message):
    assert refusal(network=network, image_size=4).startswith("image_size of stage 2 (A) " + message)


def test_a_shipped_network_says_which_images_are_too_small():
    network = models.build("resnet18", num_classes=10)
    assert "4x4 pixels are too few to be halved 5 times" in refusal(network=network, image_size=4)


def test_a_network_returns_logits_of_the_right_shape():
    with pytest.raises(InputError, match=r"model.name: Pooled turns \[2, 8, 8, 3\] into \(2, 3\), not \[2, 10\]"):
        check_output(Pooled(3), 10, 8)


@pytest.mark.parametrize(
    ("fields", "pixels", "batch", "message"),
    [
        (
            {"batch_size": 32},
            8192,
            1,
            r"batch_size of stage 1 \(A\) has 32 images of 8192 x 8192 pixels .* at most 31$",
        ),
        ({"batch_size": 10, "image_size": 16384}, 32, 1, r"has 10 images of 16384 x 16384 pixels .* at most 7$"),
        ({"batch_size": 31}, 8192, 32, r"evaluation.batch_size has 32 images of 8192 x 8192 pixels .* at most 31$"),
        ({"batch_size": 31}, 8192, 31, None),
        ({"batch_size": 64, "microbatches": 4}, 8192, 0, None),
    ],
)
def test_a_batch_has_fewer_pixels_than_jax_counts(fields, pixels, batch, message):
    """Nothing so large is made."""
    experiment = ExperimentConfig(data=DataConfig(image_size=pixels), evaluation=EvaluationConfig(batch_size=batch))
    planned = [dataclasses.replace(stage(), **fields)]
    with nullcontext() if message is None else pytest.raises(InputError, match=message):
        check_functions(experiment, planned, Pooled(), 10)


def test_batch_norm_needs_two_images_in_each_microbatch():
    network = models.build("resnet18", num_classes=10)
    check_single_images((stage(microbatches=5),), network, 33)
    with pytest.raises(InputError, match=r"microbatches of stage 2 \(A\) is 10: "):
        check_single_images((stage(), stage(microbatches=10)), network, 32)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda state, make: state.params, "plan.carry: <lambda> returned dict: it must return a TrainState"),
        (lambda state, make: state.undefined, "(state, make_initial_state) failed: AttributeError"),
        (lambda state: state, "(state, make_initial_state) failed: TypeError"),
        (lambda state, make: state._replace(batch_stats={}), "['mean'] from float32[8] to missing"),
        (
            lambda state, make: state._replace(params=jax.tree.map(jnp.ravel, state.params)),
            "changes state.params['Conv_0']['kernel'] from float32[3,3,3,8] to float32[216]",
        ),
        (
            lambda state, make: state._replace(params=jax.tree.map(lambda leaf: leaf.astype("float16"), state.params)),
            "changes state.params['BatchNorm_0']['bias'] from float32[8] to float16[8]",
        ),
    ],
)
def test_a_boundary_rule_returns_a_state_like_the_one_it_gets(rule, message):
    with pytest.raises(InputError) as refused:
        check_boundary_rule(rule, initializer())
    assert message in str(refused.value)


@pytest.mark.parametrize("rule", [*BOUNDARY_RULES.values(), shrink_perturb(0.5)])
def test_the_shipped_boundary_rules_fit(rule):
    check_boundary_rule(rule, initializer())


def initializer():
    return make_state_initializer(ExperimentConfig(data=DataConfig(image_size=8)), TinyNet(), 10)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("flop", "it must be one of flip, crop, cutout, color_jitter, mixup, cutmix; did you mean flip?"),
        ("crop:x", "padding is 'x': it must be a whole number"),
        ("crop:1.5", "padding is '1.5': it must be a whole number"),
        ("crop:-1", "padding is -1: it must be at least 0"),
        ("crop:4:mirror", "mode is 'mirror': it must be one of 'zero', 'reflect'"),
        ("crop:4:zero:1", "crop takes padding and mode after it"),
        ("flip:1", "flip takes nothing after it"),
        ("cutout:0", "size is 0: it must be at least 1"),
        ("color_jitter:2", "brightness is 2.0: it must be from 0 to 1"),
        ("mixup:0", "alpha is 0.0: it must be a positive number"),
        ("mixup:nan", "alpha is nan: it must be a positive number"),
        ("cutmix:-1", "alpha is -1.0: it must be a positive number"),
        ("mixup:", "alpha is '': it must be a number"),
    ],
)
def test_words_that_name_no_augmentation_get_one_sentence(word, message):
    with pytest.raises(InputError) as refused:
        make_recipe(ExperimentConfig(data=DataConfig(augmentation=("flip", word))), 10)
    assert str(refused.value).startswith(f"data.augmentation is {word!r}: ")
    assert message in str(refused.value)


def test_an_unknown_metric_gets_the_nearest():
    config = ExperimentConfig(evaluation=EvaluationConfig(metrics=("calibration",)))
    with pytest.raises(InputError, match=r"did you mean calibration_error\?"):
        make_recipe(config, 10)


@pytest.mark.parametrize("made", [partial(losses.focal, -1.0), partial(losses.cross_entropy, 1.0)])
def test_a_loss_has_bounds(made):
    with pytest.raises(InputError, match="it must be"):
        made()
