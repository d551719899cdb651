from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from stepwise_jax.data.batches import pad_rows
from stepwise_jax.functional.boundary import reestimate_batch_stats
from stepwise_jax.functional.metrics import label_ranks, make_eval_step, make_metrics, scores_from_sums
from stepwise_jax.functional.state import TrainState
from stepwise_jax.functional.train_step import Batch

RANDOM = np.random.default_rng(0)


def stable_ranks(logits: np.ndarray, labels: np.ndarray) -> list[int]:
    order = np.argsort(-logits, axis=1, kind="stable")
    return [row.tolist().index(label) for row, label in zip(order, labels, strict=True)]


@pytest.mark.parametrize("classes", [2, 3, 5, 10, 101])
def test_ranks_are_those_of_a_stable_sort_ties_included(classes):
    # Whole numbers from few values, so that most rows hold ties.
    logits = RANDOM.integers(-2, 3, (200, classes)).astype(np.float32)
    labels = RANDOM.integers(0, classes, 200)
    assert label_ranks(jnp.asarray(logits), jnp.asarray(labels)).tolist() == stable_ranks(logits, labels)


def test_ranks_of_infinite_logits():
    logits = jnp.array([[-np.inf, 0.0, np.inf], [-np.inf, -np.inf, -np.inf], [np.inf, np.inf, 0.0]])
    assert label_ranks(logits, jnp.array([2, 1, 1])).tolist() == [0, 1, 1]


def test_a_nan_is_never_right():
    for nan in range(6):
        logits = np.arange(6, dtype=np.float32)[None].repeat(6, axis=0)
        logits[:, nan] = np.nan
        found = np.asarray(label_ranks(jnp.asarray(logits), jnp.arange(6)))
        assert (found >= 1).all(), "a row with a NaN was scored as right"
        assert found[nan] == 6, "a class whose logit is NaN came into the top five"


class Linear(nn.Module):
    """Logits are a matrix times the pixels."""

    classes: int = 7

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(self.classes, use_bias=False)(images.reshape(len(images), -1))


def scores(classes: int, count: int, batch_size: int) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """What evaluating in batches gives, and the logits and labels in numpy."""
    random = np.random.default_rng(1)
    images, labels = random.normal(size=(count, 2, 2, 1)).astype(np.float32), random.integers(0, classes, count)
    kernel = random.normal(size=(4, classes)).astype(np.float32)
    state = TrainState(jnp.int32(0), {"Dense_0": {"kernel": jnp.asarray(kernel)}}, {}, ())
    metrics = make_metrics(classes)
    counting = jax.jit(make_eval_step(Linear(classes), metrics))
    batches = zip(*pad_rows(count, batch_size), strict=True)
    sums = [
        counting(state, Batch(jnp.asarray(images[rows]), jnp.asarray(labels[rows])), mask) for rows, mask in batches
    ]
    return scores_from_sums(metrics, sums, count), images.reshape(count, 4).astype(np.float64) @ kernel, labels


@pytest.mark.parametrize("batch_size", [1, 4, 5, 23, 40])
def test_scores_are_exact_for_every_batch_size(batch_size):
    found, logits, labels = scores(7, 23, batch_size)
    places = np.array(stable_ranks(logits, labels))
    assert 0 < found["top1"] < found["top5"] < 1
    assert (found["top1"], found["top5"]) == (np.sum(places < 1) / 23, np.sum(places < 5) / 23)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(23), labels]
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_with_five_classes_or_fewer_there_is_no_top_five():
    for classes in (2, 5):
        found, logits, labels = scores(classes, 23, 8)
        assert set(found) == {"top1", "loss"}
        assert found["top1"] == np.mean(logits.argmax(axis=1) == labels)


def test_sums_beyond_32_bits_stay_exact():
    counts = [{"top1": np.int32(2**30 + 1), "top5": np.int32(2**31 - 1), "loss": np.float32(2**24)}] * 8
    found = scores_from_sums(make_metrics(10), counts, 2**40)  # pyright: ignore[reportArgumentType]
    assert found["top1"] * 2**40 == 8 * (2**30 + 1)
    assert found["top5"] * 2**40 == 8 * (2**31 - 1)
    assert found["loss"] * 2**40 == 8 * 2**24


class TwoNorms(nn.Module):
    """Two batch norms in a row, each with its own averaging."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="first")(images)
        return nn.BatchNorm(use_running_average=not train, momentum=0.5, name="second")(jnp.square(x))


def batch_moments(images: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Mean and (biased) variance of what each norm of `TwoNorms` sees of one batch."""
    mean, var = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    squared = np.square((images - mean) / np.sqrt(var + 1e-5))
    second = {"mean": squared.mean(axis=(0, 1, 2)), "var": squared.var(axis=(0, 1, 2))}
    return {"first": {"mean": mean, "var": var}, "second": second}


@pytest.mark.parametrize("size", [1.0, 300.0], ids=["ordinary activations", "large activations"])
def test_reestimated_statistics_are_the_plain_mean_over_the_batches(size):
    batches = size * RANDOM.gamma(2.0, size=(5, 8, 4, 4, 3)) * np.array([1.0, 2.0, 0.1])
    network = TwoNorms()
    variables = network.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), train=False)

    @jax.jit
    def statistics(batch_stats: Any, images: np.ndarray) -> Any:
        kept = {"params": variables["params"], "batch_stats": batch_stats}
        return network.apply(kept, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]  # pyright: ignore

    # Whatever the statistics were before must not matter.
    stale = jax.tree.map(lambda leaf: jnp.full_like(leaf, 123.0), variables["batch_stats"])
    found = reestimate_batch_stats(statistics, stale, batches.astype(np.float32))
    moments = [batch_moments(batch) for batch in batches]
    expected = jax.tree.map(lambda *values: np.mean(values, axis=0), *moments)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=2e-4), found, expected)
