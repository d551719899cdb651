"""Layers together: in a block, and divided among devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import layers
from tests.models.layer_inputs import normal


def test_the_gradient_of_a_relu_is_none_at_zero_and_below():
    x = jnp.asarray([-1.0, 0.0, 2.0])
    assert jax.grad(lambda x: layers.rectify(x).sum())(x).tolist() == [0, 0, 1]


FOUR_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np, models
from jax.sharding import NamedSharding, PartitionSpec
from stepwise_jax.runtime import sharding
platform = sys.argv[1]
jax.lax.platform_dependent = lambda *args, **by: by.get(platform, by["default"])(*args)
assert jax.device_count() == 4
net = models.build("res2next50", num_classes=3, width=8, blocks=(1,), small_images=True)
images = jax.random.normal(jax.random.key(1), (8, 8, 8, 3)) * jnp.arange(1.0, 9.0)[:, None, None, None]
variables = jax.jit(lambda key: net.init(key, images, train=False))(jax.random.key(0))

@jax.jit
def step(variables, images):
    def loss(params):
        logits, updated = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.square(logits).mean(), updated["batch_stats"]
    return jax.value_and_grad(loss, has_aux=True)(variables["params"])

mesh = sharding.make_mesh()
shared = (jax.device_put(variables, NamedSharding(mesh, PartitionSpec())),
          jax.device_put(images, NamedSharding(mesh, PartitionSpec("data"))))
divided = jax.jit(sharding.on_mesh(mesh, step.__wrapped__)).lower(*shared).compile()
one, four = step(variables, images), divided(*shared)
assert "all-reduce(" in divided.as_text() and "all-gather(" not in divided.as_text()
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, four)
"""


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_four_devices_normalise_by_the_global_batch_and_gather_nothing(platform):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    result = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, platform],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_zero_initialised_last_scale_makes_blocks_the_identity():
    from models.resnet import Bottleneck

    block = Bottleneck(features=4, zero_init_last_scale=True)
    x = jax.nn.relu(normal(2, 4, 4, 16))
    output, _ = block.init_with_output(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(output, x)
