"""SGD with PyTorch's update rule. Its hyperparameters are injected, so a stage can set them without recompiling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.runtime.sharding import place


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Create SGD: weight decay added to the gradient, then momentum, then the learning rate.

    The three hyperparameters are part of the optimizer's state. The learning rate starts at 0; `set_hyperparameters`
    sets it before the first step.
    """

    def decay_mask(params: Any) -> Any:
        return jax.tree.map(lambda leaf: config.decay_on == "all" or leaf.ndim > 1, params)

    def sgd(learning_rate: float, momentum: float, weight_decay: float) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(weight_decay, mask=decay_mask)
        return optax.chain(decay, optax.sgd(learning_rate, momentum=momentum))

    injected = optax.inject_hyperparams(sgd, hyperparam_dtype=jnp.dtype(jnp.float32))
    return injected(learning_rate=0.0, momentum=config.momentum, weight_decay=config.weight_decay)


def set_hyperparameters(opt_state: Any, **values: float) -> Any:
    """Return the optimizer's state with other hyperparameters, such as `learning_rate=0.1`.

    The new arrays keep dtype, sharding and strong type: a Python float would recompile the step.
    """
    hyperparams = dict(opt_state.hyperparams)
    for name, value in values.items():
        old = hyperparams[name]
        # NumPy, because a JAX operation takes a millisecond, between two stages, while the device waits.
        hyperparams[name] = place(np.full(old.shape, value, old.dtype), old.sharding)
    return opt_state._replace(hyperparams=hyperparams)


def momentum_buffer(opt_state: Any) -> Any:
    """Return the momentum of every parameter, as a tree like the parameters."""
    return optax.tree_utils.tree_get(opt_state, "trace")
