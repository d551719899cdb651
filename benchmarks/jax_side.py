"""Our side of a comparison: the training call of a run, prepared and executed by batch size."""

import sys
from pathlib import Path
from typing import Any

IMAGES = 1024


class JaxSide:
    """One of our networks; all compiled calls share one state."""

    def __init__(self, setup: dict[str, Any]):
        sys.path.insert(0, str(Path(__file__).parent.parent))
        import jax
        import numpy as np

        import models
        from stepwise_jax.data.loaders import ResidentLoader, place_resident
        from stepwise_jax.experiment.config import OptimizerConfig
        from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
        from stepwise_jax.functional.preprocessing import make_preprocessing
        from stepwise_jax.runtime import sharding
        from stepwise_jax.runtime.process import compute_in_main_thread
        from stepwise_jax.training.programs import step_functions

        compute_in_main_thread()
        self._step_functions, self._steps_per_call, side = step_functions, setup["steps_per_call"], setup["image_size"]
        mesh, optimizer = sharding.make_mesh(), make_optimizer(OptimizerConfig())
        shape = {name: setup[name] for name in ("small_images", "width", "blocks")}
        network = models.build(setup["network"], num_classes=setup["classes"], dtype=setup["precision"], **shape)
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)
        labels = random.integers(0, setup["classes"], IMAGES)
        self._loader = ResidentLoader(place_resident(images, labels, mesh, sharded=False), mesh)
        self._function = step_functions.jit_train_call(network, optimizer, make_preprocessing("imagenet", side), mesh)
        state = step_functions.random_state(network, optimizer, side, mesh)
        self._state = state._replace(opt_state=set_hyperparameters(state.opt_state, learning_rate=0.001))
        self._calls: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._random, self._jax = random, jax

    def describe(self) -> dict[str, Any]:
        """Device, versions, and the number of parameters."""
        from stepwise_jax.runtime import devices

        parameters = sum(leaf.size for leaf in self._jax.tree.leaves(self._state.params))
        return {"parameters": parameters, **devices.describe_environment()}

    def prepare(self, batch_size: int, variant: str) -> None:
        """Compiles; a step allocates its memory when it runs."""
        steps = self._steps_per_call
        rows = self._random.integers(0, IMAGES, (steps, batch_size)).astype("int32")
        (inputs,) = self._loader.stacked_batches(rows, [range(steps)])
        abstract = self._loader.abstract_inputs(steps, batch_size)
        compiled = self._step_functions.compile_train_call(self._function, self._state, self._loader.examples, abstract)
        self._calls[batch_size, variant] = compiled.call, inputs

    def run(self, batch_size: int, variant: str, steps: int) -> None:
        """Runs steps, a multiple of those in one call, and waits for them."""
        call, inputs = self._calls[batch_size, variant]
        if not steps:
            return
        for _ in range(steps // self._steps_per_call):
            self._state, losses = call(self._state, self._loader.examples, inputs)
        self._jax.block_until_ready((self._state, losses))

    def rest(self) -> None:
        """Does nothing in another process's turn: JAX keeps its memory."""

    def drop(self, batch_size: int) -> None:
        """Frees the memory of a batch size."""
        self._calls = {key: call for key, call in self._calls.items() if key[0] != batch_size}
