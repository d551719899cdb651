import jax
import jax.numpy as jnp
import pytest

from models.pooling import max_pool
from stepwise_jax.runtime.xla_options import compiler_options
from stepwise_jax.workdir import record_file


@pytest.mark.parametrize(("deterministic", "backend"), [(False, "cpu"), (True, "cpu"), (False, "tpu"), (True, "tpu")])
def test_only_a_gpu_is_asked_for_anything(deterministic, backend):
    assert compiler_options(deterministic, backend) is None


def test_what_a_gpu_is_asked_for_is_known_to_xla():
    options = compiler_options(True, "gpu") or {}
    always = compiler_options(False, "gpu") or {}
    assert options == always | {"xla_gpu_deterministic_ops": True, "xla_gpu_autotune_level": 0}
    assert jax.jit(lambda x: x + 1, compiler_options=options)(jnp.zeros(())) == 1
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_deterministic_op"):
        jax.jit(lambda x: x + 2, compiler_options={"xla_gpu_deterministic_op": True})(jnp.zeros(()))


def test_the_gradient_of_max_pooling_scatters_nothing():
    """XLA's own gradient does, and has no deterministic form on a GPU."""

    def theirs(x: jax.Array) -> jax.Array:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME").sum()

    ours, images = jax.jit(jax.grad(lambda x: max_pool(x).sum())), jnp.zeros((2, 8, 8, 3))
    texts = [
        each.trace(images).lower(lowering_platforms=("cuda",)).as_text() for each in (ours, jax.jit(jax.grad(theirs)))
    ]
    assert ["scatter" in text for text in texts] == [False, True]


def test_runs_on_a_cpu_are_the_same_to_the_bit_with_either_setting(train, tmp_path):
    names = {"once": False, "again": False, "deterministic": True}
    summaries = {name: train(tmp_path / name, deterministic=asked) for name, asked in names.items()}
    assert len({summary["state_sha256"] for summary in summaries.values()}) == 1
    once, *others = (record_file.without_seconds(record_file.read_records(tmp_path / name).epochs) for name in names)
    assert others == [once, once]


def test_a_run_does_not_resume_under_the_other_setting(train, tmp_path):
    train(tmp_path / "run")
    with pytest.raises(ValueError, match="deterministic: True instead of False"):
        train(tmp_path / "run", deterministic=True)
