"""The networks against PyTorch's figures for them, under weights that a name and a shape alone decide."""

import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models import row_products
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional import optimizers
from stepwise_jax.functional.state import learned_state, state_from_variables
from stepwise_jax.functional.train_step import Batch, make_train_step

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NETWORKS = sorted(path.stem for path in GOLDEN.glob("*.npz"))
LABELS = np.array([3, 141, 592, 653, 589, 793], np.int32)
WEIGHT_DECAY = 1e-4


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of the `state_dict` that the figures were computed with."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith("running_mean"):
        return 0.1 * rng.standard_normal(shape)
    if len(shape) == 4:
        return rng.standard_normal(shape) * np.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
    if len(shape) == 2:
        return 0.01 * rng.standard_normal(shape)
    if name.endswith("weight"):
        return rng.uniform(0.5, 1.5, shape)
    return 0.3 * np.abs(rng.standard_normal(shape))


def state_dict(golden) -> dict[str, np.ndarray]:
    shapes = (tuple(int(side) for side in shape.split(",")) for shape in golden["shapes"])
    return {str(name): fill(str(name), shape) for name, shape in zip(golden["keys"], shapes, strict=True)}


def images() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((6, 128, 128, 3)).astype(np.float32)


def relative_error(actual, expected) -> float:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def gradient_norm(before, after) -> float:
    """Of the first step, whose momentum is the gradient and the decay."""
    momentum = learned_state(after)["momentum"]
    gradient = jax.tree.map(lambda m, p: np.asarray(m) - WEIGHT_DECAY * np.asarray(p), momentum, before.params)
    return float(np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in jax.tree.leaves(gradient))))


def four_steps(name: str, variables, level: int) -> tuple[list[float], float]:
    """Losses of four steps of the project's own training step, and the norm of the first gradient.

    `level` is how much XLA optimises what it compiles.
    """
    net = models.build(name, num_classes=1000, dtype=jnp.float64)
    optimizer = optimizers.make_optimizer(OptimizerConfig(momentum=0.9, weight_decay=WEIGHT_DECAY))
    state = initial = state_from_variables(variables, optimizer)
    state = state._replace(opt_state=optimizers.set_hyperparameters(state.opt_state, learning_rate=0.001))
    batch = Batch(jnp.asarray(images(), jnp.float64), jnp.asarray(LABELS))
    options: dict[str, str | bool] = {"xla_backend_optimization_level": str(level)}
    step = jax.jit(make_train_step(net, optimizer)).lower(state, batch).compile(options)
    state, metrics = step(state, batch)
    losses, norm = [float(metrics["loss"])], gradient_norm(initial, state)
    for _ in range(3):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses, norm


def logits(name: str, variables, dtype) -> jax.Array:
    net = models.build(name, num_classes=1000, dtype=dtype)
    # Accelerators would round float32 products to fewer bits.
    with jax.default_matmul_precision("highest"):
        return jax.jit(net.apply, static_argnames="train")(variables, images(), train=False)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """Name, PyTorch's figures and our variables of each network, made once for all of its tests."""
    name = request.param
    golden = np.load(GOLDEN / f"{name}.npz")
    return name, golden, models.from_torch(name, state_dict(golden))


def test_logits_are_pytorchs(network):
    name, golden, variables = network
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == golden["params"]
    assert relative_error(logits(name, variables, jnp.float32), golden["logits"]) < 1e-3


@pytest.mark.parametrize("network", ["resnet18", "res2net50_26w_4s"], indirect=True)
def test_bfloat16_logits_are_pytorchs_within_its_precision(network):
    name, golden, variables = network
    made = logits(name, variables, jnp.bfloat16)
    assert made.dtype == jnp.float32
    assert 1e-4 < relative_error(made, golden["logits"]) < 2e-2


def test_gradient_and_losses_are_pytorchs(network, monkeypatch):
    name, golden, variables = network
    # In float32 four steps amplify rounding: PyTorch's own losses are then up to 4 % away from its float64 ones.
    # XLA's loops for a convolution in float64 take minutes where LLVM does not optimise them, and LLVM takes longer
    # than four steps: one network has both, the deep ones convolve by products of rows, grouped ones by their own.
    if name != "resnet18" and "next" not in name:
        monkeypatch.setattr(row_products, "_WIDE", 1 << 30)
        monkeypatch.setattr(row_products, "_MOST_BYTES", 1 << 40)
    # What is traced the one way must not serve the other.
    jax.clear_caches()
    with jax.enable_x64(True):
        wide = jax.tree.map(jnp.asarray, variables)
        losses, norm = four_steps(name, wide, level=1 if name == "resnet18" else 0)
    jax.clear_caches()
    assert norm == pytest.approx(float(golden["grad_norm"]), rel=1e-3)
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-3)
