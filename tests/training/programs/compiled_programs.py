"""The compiled programs of a tiny network on random images, with what they reported and timed."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import TinyNet

from stepwise_jax.data.batches import ResidentSplit
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.functional.state import TrainState, state_from_variables
from stepwise_jax.runtime import sharding
from stepwise_jax.training.measurements.timing import Timer
from stepwise_jax.training.programs.compilation import CompiledFunctions

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
    """Programs with what they reported and timed."""

    def __init__(self) -> None:
        self.timer, self.messages = Timer(), []
        self.compiled = CompiledFunctions(NETWORK, OPTIMIZER, PREPROCESSING, MESH, self.timer, self.messages.append)

    def train(self, state: TrainState, rows: np.ndarray) -> tuple[TrainState, jax.Array]:
        return self.compiled.train(state, examples(), placed(rows))


def rows(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 60, shape).astype(np.int32)
