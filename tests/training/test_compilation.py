import time
from collections.abc import Callable
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TinyNet

from stepwise_jax.data.batches import ResidentSplit
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.functional.preprocessing import Preprocessing, preprocess
from stepwise_jax.functional.state import TrainState, state_from_variables
from stepwise_jax.functional.train_step import Batch, make_train_step
from stepwise_jax.runtime import sharding, threads
from stepwise_jax.training import compilation
from stepwise_jax.training.compilation import CompiledFunctions
from stepwise_jax.training.timing import Timer

NETWORK = TinyNet(num_classes=7)
OPTIMIZER = make_optimizer(OptimizerConfig())
PREPROCESSING = Preprocessing(8, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
MESH = sharding.make_mesh()
RANDOM = np.random.default_rng(0)
IMAGES, LABELS = RANDOM.integers(0, 256, (60, 6, 6, 3), dtype=np.uint8), RANDOM.integers(0, 7, 60).astype(np.int32)


def examples(count: int = 60) -> ResidentSplit:
    whole = sharding.replicated(MESH)
    return ResidentSplit(jax.device_put(IMAGES[:count], whole), jax.device_put(LABELS[:count], whole))


def start() -> TrainState:
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: NETWORK.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))
    variables = jax.tree.map(lambda leaf: random.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)
    state = state_from_variables(variables, OPTIMIZER)
    opt_state = set_hyperparameters(state.opt_state, learning_rate=0.01)
    return jax.device_put(state._replace(opt_state=opt_state), sharding.replicated(MESH))


def placed(rows: np.ndarray) -> jax.Array:
    return jax.device_put(rows, sharding.split_along(MESH, rows.ndim - 1))


class Opened:
    """Programs with what they told and timed."""

    def __init__(self) -> None:
        self.timer, self.messages = Timer(), []
        self.compiled = CompiledFunctions(NETWORK, OPTIMIZER, PREPROCESSING, MESH, self.timer, self.messages.append)

    def train(self, state: TrainState, rows: np.ndarray) -> tuple[TrainState, jax.Array]:
        return self.compiled.train(state, examples(), placed(rows))


@pytest.fixture(scope="module")
def shared() -> Opened:
    """Programs that are compiled once for all tests which do not watch the compiling."""
    return Opened()


def rows(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 60, shape).astype(np.int32)


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


# ---- Compiling


def test_every_distinct_shape_compiles_once_and_is_told_and_timed_once(compilations):
    opened, state = Opened(), start()
    before = len(compilations)
    for shape in ((1, 8), (1, 8), (1, 12), (2, 8), (1, 8), (1, 12), (2, 8)):
        state, _ = opened.train(state, rows(*shape))
    messages = [text.partition(" in ")[0] for text in opened.messages]
    assert messages == [f"compiled train for {shape} examples" for shape in ("1 x 8", "1 x 12", "2 x 8")]
    assert len(compilations) - before == 3
    seconds = opened.timer.read()
    assert seconds["compile"] > 0
    opened.train(state, rows(1, 12))
    assert opened.timer.read() == seconds


def test_what_is_prepared_compiles_before_the_first_step(compilations):
    opened, state = Opened(), start()
    opened.compiled.compile_train(state, examples(), placed(rows(1, 16)))
    prepared = len(compilations)
    state, _ = opened.train(state, rows(1, 16))
    assert len(compilations) == prepared
    assert int(state.step) == 1, "preparing took a step or took the state's memory"


def test_what_is_compiled_in_the_background_is_the_same_program_and_compiles_once(shared, compilations):
    opened, state = Opened(), start()
    expected, losses = shared.train(start(), rows_of_24 := rows(1, 24))
    before = len(compilations)
    for _ in range(2):
        opened.compiled.compile_train_ahead(state, examples(), placed(rows(1, 24)))
    # Training goes on meanwhile and takes over the memory of the state that the compiler was shown.
    state, _ = opened.train(state, rows(1, 8))
    again, ours = opened.train(start(), rows_of_24)
    assert len(compilations) - before == 2
    assert [text.partition(" in ")[0] for text in opened.messages] == [
        "compiled train for 1 x 8 examples",
        "compiled train for 1 x 24 examples",
    ]
    assert "background" in opened.messages[1]
    np.testing.assert_array_equal(ours, losses)
    jax.tree.map(np.testing.assert_array_equal, again, expected)


def test_all_kinds_of_programs_compile_in_the_background(compilations):
    opened, state, batch = Opened(), start(), placed(rows(20))
    prepared = opened.compiled
    prepared.compile_evaluate_ahead(state, examples(), batch)
    prepared.compile_predict_ahead(state, examples(), batch)
    prepared.compile_batch_stats_ahead(state, examples(), batch)
    before = len(compilations)
    assert prepared.predict(state, examples(), batch).shape == (20, 7)
    assert int(prepared.evaluate(state, examples(), batch, np.ones(20, bool))["top1"]) >= 0
    prepared.update_batch_stats(state.batch_stats, state, examples(), batch)
    assert len(opened.messages) == 3
    assert len(compilations) - before <= 3


def test_compiling_in_the_background_that_fails_is_told_and_done_again(monkeypatch):
    opened, state, real = Opened(), start(), compilation._compile_timed
    monkeypatch.setattr(compilation, "_compile_timed", fail)
    opened.compiled.compile_train_ahead(state, examples(), placed(rows(1, 8)))
    opened.compiled.close()
    wait_for(lambda: not threads.is_busy())
    monkeypatch.setattr(compilation, "_compile_timed", real)
    state, _ = opened.train(state, rows(1, 8))
    assert int(state.step) == 1
    failed, done = opened.messages
    assert failed == (
        "compiling train for 1 x 8 examples in the background failed (no memory for autotuning): trying again"
    )
    assert done.startswith("compiled train for 1 x 8 examples in ")


def fail(*_: Any) -> Any:
    raise RuntimeError("no memory for autotuning\nand a long trace")


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_settings_of_the_caller_hold_in_the_background():
    """A `with` around a run is seen by the thread of the run alone."""
    opened, state = Opened(), start()
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), state)
        opened.compiled.compile_train_ahead(wide, examples(), placed(rows(1, 8)))
        # Without the setting the trace would not be the one that is asked for here.
        after, _ = opened.train(wide, rows(1, 8))
    assert int(after.step) == 1


def wrong_states() -> dict[str, TrainState]:
    state = start()
    kernel = state.params["Dense_0"]["kernel"]

    def with_kernel(value: Any) -> TrainState:
        return state._replace(params={**state.params, "Dense_0": {**state.params["Dense_0"], "kernel": value}})

    return {
        "dtype": with_kernel(kernel.astype(jnp.bfloat16)),
        "shape": with_kernel(jnp.concatenate([kernel, kernel])),
        "tree": state._replace(batch_stats={}),
    }


@pytest.mark.parametrize("wrong", ["dtype", "shape", "tree"])
def test_a_state_of_another_kind_is_an_error_and_no_silent_compilation(shared, compilations, wrong):
    state = wrong_states()[wrong]
    shared.train(start(), rows(1, 8))
    resident, inputs, before = examples(), placed(rows(1, 8)), len(compilations)
    with pytest.raises((TypeError, ValueError)):
        shared.compiled.train(state, resident, inputs)
    assert len(compilations) == before


def test_a_split_of_another_size_is_an_error_and_no_silent_compilation(shared):
    shared.train(start(), rows(1, 8))
    with pytest.raises((TypeError, ValueError)):
        shared.compiled.train(start(), examples(59), placed(rows(1, 8)))


# ---- Scores, predictions, statistics, cost


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
    np.testing.assert_allclose(
        shared.compiled.predict(state, examples(), placed(inputs)), expected, rtol=2e-3, atol=1e-5
    )
    mask = np.arange(20) % 3 > 0
    counts = jax.device_get(shared.compiled.evaluate(state, examples(), placed(inputs), mask))
    own = expected[np.arange(20), LABELS[:20]]
    places = (expected > own[:, None]).sum(axis=1)[mask]
    assert (counts["top1"], counts["top5"]) == ((places < 1).sum(), (places < 5).sum())
    assert counts["loss"] == pytest.approx(-np.log(own[mask]).sum(), rel=1e-3)


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
