"""Metrics beside the counts: calibration against brute force, functions of one's own, and averaged weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from stepwise_jax.data.batches import pad_rows
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.metrics import expected_calibration_error, make_eval_step, make_metrics, scores_from_sums
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.functional.state import StateOptions, state_from_variables
from stepwise_jax.functional.train_step import Batch, make_train_step

RANDOM = np.random.default_rng(0)
COUNT = 57
IMAGES = RANDOM.normal(size=(COUNT, 2, 2, 1)).astype(np.float32)
LABELS = RANDOM.integers(0, 4, COUNT)


class Linear(nn.Module):
    """Logits are a matrix times the pixels."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(4, use_bias=False)(images.reshape(len(images), -1))


def start(averaged: bool = False):
    kernel = jnp.asarray(RANDOM.normal(size=(4, 4)), jnp.float32)
    variables = {"params": {"Dense_0": {"kernel": kernel}}}
    return state_from_variables(variables, make_optimizer(OptimizerConfig()), options=StateOptions(averaged=averaged))


def scored(state, metrics, batch_size: int) -> dict[str, float]:
    step = jax.jit(make_eval_step(Linear(), metrics))
    batches = zip(*pad_rows(COUNT, batch_size), strict=True)
    sums = [step(state, Batch(jnp.asarray(IMAGES[rows]), jnp.asarray(LABELS[rows])), mask) for rows, mask in batches]
    return scores_from_sums(metrics, sums, COUNT)


def probabilities(kernel: Any) -> np.ndarray:
    logits = IMAGES.reshape(COUNT, 4).astype(np.float64) @ np.asarray(kernel, np.float64)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def brute_force(p: np.ndarray, bins: int) -> float:
    """Guo et al. (2017), Eq. 3, bin by bin: (low, high]."""
    confidence, correct, total = p.max(axis=1), p.argmax(axis=1) == LABELS, 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            total += inside.sum() / COUNT * abs(confidence[inside].mean() - correct[inside].mean())
    return total


@pytest.mark.parametrize("batch_size", [1, 10, 57, 100])
@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_is_exact_for_every_batch_size(bins, batch_size):
    state = start()
    metrics = make_metrics(4, others={"calibration_error": expected_calibration_error(bins)})
    found = scored(state, metrics, min(batch_size, COUNT))["calibration_error"]
    assert found == pytest.approx(brute_force(probabilities(state.params["Dense_0"]["kernel"]), bins), rel=1e-4)
    assert found > 0.01


def test_a_function_of_ones_own_is_averaged_over_the_masked_examples_alone():
    state = start()
    metrics = make_metrics(4, others={"confidence": lambda logits, labels: jax.nn.softmax(logits).max(axis=-1)})
    found = scored(state, metrics, 10)["confidence"]
    assert found == pytest.approx(probabilities(state.params["Dense_0"]["kernel"]).max(axis=1).mean(), rel=1e-5)


def test_averaged_weights_follow_their_recurrence_and_are_scored_beside_the_others():
    state, optimizer = start(averaged=True), make_optimizer(OptimizerConfig())
    state = state._replace(opt_state=set_hyperparameters(state.opt_state, learning_rate=0.5))
    step = jax.jit(make_train_step(Linear(), optimizer, ema_decay=0.75))
    average = np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    for _ in range(4):
        state, _ = step(state, Batch(jnp.asarray(IMAGES), jnp.asarray(LABELS)))
        average = 0.75 * average + 0.25 * np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    np.testing.assert_allclose(state.ema["params"]["Dense_0"]["kernel"], average, rtol=1e-5)
    scores = scored(state, make_metrics(4), 10)
    for prefix, kernel in (("", state.params["Dense_0"]["kernel"]), ("ema_", average)):
        p = probabilities(kernel)
        assert scores[f"{prefix}top1"] == np.mean(p.argmax(axis=1) == LABELS)
        assert scores[f"{prefix}loss"] == pytest.approx(-np.log(p[np.arange(COUNT), LABELS]).mean(), rel=1e-4)
    assert scores["loss"] != scores["ema_loss"]
