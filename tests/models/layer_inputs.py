"""What layers are given in tests: random arrays, and the platform that they are traced for."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def trace_as_on(monkeypatch, platform):
    """What is traced from here on is what `platform` gets, wherever it runs."""
    monkeypatch.setattr(lax, "platform_dependent", lambda *args, **by: by.get(platform, by["default"])(*args))
    jax.clear_caches()
