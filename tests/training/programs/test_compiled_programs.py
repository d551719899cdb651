"""What the compiled programs compute: steps, scores, predictions, statistics, and what they cost."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepwise_jax.functional.preprocessing import preprocess
from stepwise_jax.functional.state import TrainState
from stepwise_jax.functional.train_step import Batch, make_train_step
from stepwise_jax.runtime import sharding
from stepwise_jax.training.programs.step_functions import rank_classes
from tests.training.programs.compiled_programs import (
    IMAGES,
    LABELS,
    MESH,
    NETWORK,
    OPTIMIZER,
    PREPROCESSING,
    Opened,
    examples,
    placed,
    rows,
    start,
)


@pytest.fixture(scope="module")
def shared() -> Opened:
    """Programs that are compiled once for all tests which do not watch the compiling."""
    return Opened()


def assert_close(ours: Any, theirs: Any, rtol: float, atol: float = 0.0) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


def test_a_call_is_a_step_on_the_preprocessed_rows(shared):
    inputs = rows(1, 8)
    batch = Batch(preprocess(jnp.asarray(IMAGES[inputs[0]]), PREPROCESSING), jnp.asarray(LABELS[inputs[0]]))
    expected, metrics = jax.jit(make_train_step(NETWORK, OPTIMIZER))(start(), batch)
    state, losses = shared.train(start(), inputs)
    assert losses.shape == (1,)
    assert float(losses[0]) == pytest.approx(float(metrics["loss"]), rel=1e-5)
    assert_close(state, expected, rtol=1e-4, atol=1e-5)


def test_several_steps_in_one_call_are_those_steps_one_by_one(shared):
    inputs = rows(4, 8)
    state, one_by_one = start(), []
    for batch in inputs:
        state, losses = shared.train(state, batch[None])
        one_by_one.append(float(losses[0]))
    on_all_processes, losses = shared.train(start(), inputs)
    assert int(on_all_processes.step) == int(state.step) == 4
    assert len(set(one_by_one)) == 4
    np.testing.assert_allclose(losses, one_by_one, rtol=1e-4)
    assert_close(on_all_processes, state, rtol=1e-3, atol=1e-5)


def test_the_old_state_is_gone_after_a_call(shared):
    """Its memory is the new state's: a state that lived on would double what training takes."""
    state = start()
    after, _ = shared.train(state, rows(1, 8))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def reference_probabilities(state: TrainState, inputs: np.ndarray) -> np.ndarray:
    """Evaluation mode, written in numpy from the definition of each layer of `TinyNet`."""
    params, stats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (state.params, state.batch_stats))
    images = np.asarray(preprocess(jnp.asarray(IMAGES[inputs]), PREPROCESSING), np.float64)
    # "SAME" padding of a 3 x 3 kernel with stride 2 over 8 pixels: one row and one column at the end.
    padded = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
    x = np.zeros((len(inputs), 4, 4, 8)) + params["Conv_0"]["bias"]
    for i in range(3):
        for j in range(3):
            x += padded[:, i : i + 8 : 2, j : j + 8 : 2][:, :4, :4] @ params["Conv_0"]["kernel"][i, j]
    norm, running = params["BatchNorm_0"], stats["BatchNorm_0"]
    x = (x - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
    logits = np.maximum(x, 0).reshape(len(inputs), -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_predictions_and_counts_are_those_of_the_network_in_numpy(shared):
    state, inputs = start(), np.arange(20, dtype=np.int32)
    expected = reference_probabilities(state, inputs)
    assert 0.05 < expected.max() < 0.999
    own = expected[np.arange(20), LABELS[:20]]
    ranks = (expected > own[:, None]).sum(axis=1)
    ranking = jax.device_get(shared.compiled.predict(state, examples(), placed(inputs)))
    assert (ranking.classes.dtype, ranking.label_ranks.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(ranking.classes, np.argsort(-expected, axis=1)[:, :10])
    np.testing.assert_allclose(ranking.probabilities, -np.sort(-expected, axis=1)[:, :10], rtol=2e-3, atol=1e-5)
    np.testing.assert_array_equal(ranking.label_ranks, ranks)
    np.testing.assert_allclose(ranking.label_probabilities, own, rtol=2e-3, atol=1e-5)
    mask = np.arange(20) % 3 > 0
    counts = jax.device_get(shared.compiled.evaluate(state, examples(), placed(inputs), mask))
    assert (counts["top1"], counts["top5"]) == ((ranks[mask] < 1).sum(), (ranks[mask] < 5).sum())
    assert counts["loss"] == pytest.approx(-np.log(own[mask]).sum(), rel=1e-3)


@pytest.mark.parametrize("classes", [2, 10, 101])
def test_the_ten_most_probable_classes_are_those_of_a_stable_sort_ties_included(classes):
    # Whole numbers from few values, so that most rows hold ties; and zeros of either sign.
    logits = np.random.default_rng(0).integers(-2, 3, (40, classes)).astype(np.float32)
    logits[::2] *= np.where(logits[::2] == 0, -1, 1)
    labels = np.arange(40) % classes
    rows = sharding.split_along(MESH, 0)
    ranking = jax.device_get(jax.jit(rank_classes)(*jax.device_put((logits, labels), rows)))
    order = np.argsort(-logits, axis=1, kind="stable")
    np.testing.assert_array_equal(ranking.classes, order[:, :10])
    np.testing.assert_array_equal(ranking.label_ranks, np.argmax(order == labels[:, None], axis=1))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ranking.probabilities, np.take_along_axis(probabilities, order, 1)[:, :10], rtol=1e-5)
    np.testing.assert_allclose(ranking.label_probabilities, probabilities[np.arange(40), labels], rtol=1e-5)


def test_a_diverged_network_predicts_nothing_correctly():
    ranking = rank_classes(jnp.full((2, 12), jnp.nan), jnp.array([0, 5]))
    assert (np.asarray(ranking.label_ranks) > 0).all()


def test_statistics_start_from_what_is_given_and_not_from_the_state(shared):
    state, inputs = start(), rows(16)
    zeros = jax.tree.map(jnp.zeros_like, state.batch_stats)
    from_zeros = shared.compiled.update_batch_stats(zeros, state, examples(), placed(inputs))
    from_state = shared.compiled.update_batch_stats(state.batch_stats, state, examples(), placed(inputs))
    expected = jax.tree.map(lambda old, new: 0.9 * old + new, state.batch_stats, from_zeros)
    assert_close(from_state, expected, rtol=1e-5)
    after, _ = shared.train(start(), inputs[None])
    assert_close(after.batch_stats, from_state, rtol=1e-4)


def test_an_evaluation_batch_is_no_larger_than_the_split(shared):
    assert [shared.compiled.evaluation_batch_size(wanted, 360) for wanted in (1, 250, 360, 1000)] == [1, 250, 360, 360]


def test_an_evaluation_batch_that_nobody_chose_is_one_that_the_device_likes(shared):
    assert shared.compiled.evaluation_batch_size(0, 30) == 30
    assert 1 <= shared.compiled.evaluation_batch_size(0, 10_000) <= 1000


def test_the_cost_of_a_step_grows_with_the_batch(shared):
    one, two = (shared.compiled.flops_per_step(start(), examples(), placed(rows(1, size))) for size in (16, 32))
    forward = 16 * 2 * (4 * 4 * 9 * 3 * 8 + 4 * 4 * 8 * 7)
    # The gradient of the weights costs another forward pass at least, the whole step some three.
    assert 2 * forward < one < 10 * forward
    assert 1.8 < two / one < 2.05


def test_the_cost_of_a_step_is_counted_for_devices_that_xla_does_not_count_for(shared, monkeypatch):
    expected = shared.compiled.flops_per_step(start(), examples(), placed(rows(1, 16)))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    # On one device what was traced knows of its mesh, which costs or saves an addition here and there.
    counted = shared.compiled.flops_per_step(start(), examples(), placed(rows(1, 16)))
    assert counted == pytest.approx(expected, rel=1e-3)
    monkeypatch.setattr(jax, "local_devices", lambda backend: jax.devices("abacus"))
    assert shared.compiled.flops_per_step(start(), examples(), placed(rows(1, 16))) == 0
