"""Every program compiles once, ahead of its first call or in the background, and never in silence."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepwise_jax.functional.state import TrainState
from stepwise_jax.runtime import threads
from stepwise_jax.training.programs import compilation
from tests.training.programs.compiled_programs import Opened, examples, placed, rows, start


@pytest.fixture(scope="module")
def shared() -> Opened:
    """Programs that are compiled once for all tests which do not watch the compiling."""
    return Opened()


def test_every_distinct_shape_compiles_once_and_is_reported_and_timed_once(compilations):
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
    assert prepared.predict(state, examples(), batch).classes.shape == (20, 7)
    assert int(prepared.evaluate(state, examples(), batch, np.ones(20, bool))["top1"]) >= 0
    prepared.update_batch_stats(state.batch_stats, state, examples(), batch)
    assert len(opened.messages) == 3
    assert len(compilations) - before <= 3


def test_compiling_in_the_background_that_fails_is_reported_and_repeated(monkeypatch):
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
