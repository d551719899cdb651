"""One process of a run in float64, for the tests of several hosts; it may be struck at a given place.

python tests/on_hosts.py WORKDIR DATA_DIR PROCESSES PROCESS COORDINATOR [EXAMPLES SIGNAL|QUOTA]
"""

import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from conftest import Recorder

from models.resnet import BasicBlock, ResNet
from stepwise_jax.errors import StepwiseError
from stepwise_jax.experiment.config import CheckpointConfig, DataConfig, EvaluationConfig, ExperimentConfig, PlanConfig
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.state import make_initializer
from stepwise_jax.plans import planning
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.process import silence_orbax
from stepwise_jax.training import loop
from stepwise_jax.workdir.records import StepsRecord

SIDE, EXAMPLES = 8, 320
PLAN = PlanConfig(
    fractions=(0.5, 1.0),
    batch_multipliers=(2.0, 1.0),
    batch_size=16,
    learning_rate=0.05,
    epochs_per_stage=2,
    decay_every=1,
)


def strike(name: str) -> None:
    """Sends this process a signal, or refuses it every file of more than a byte as a quota does."""
    if name == "QUOTA":
        # Python does not notice that the quota cuts a .pyc file short.
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
    else:
        os.kill(os.getpid(), signal.Signals[name])


class StruckAt(Recorder):
    """Strikes this process when so many examples are fed."""

    def __init__(self, examples: int, name: str):
        super().__init__()
        self._examples, self._name = examples, name

    def on_steps(self, record: StepsRecord) -> None:
        if record.examples_seen >= self._examples:
            self._examples = sys.maxsize
            strike(self._name)


def experiment(data_dir: str) -> ExperimentConfig:
    return ExperimentConfig(
        data=DataConfig(
            name="digits", data_dir=data_dir, image_size=SIDE, train_examples=EXAMPLES, normalisation="none"
        ),
        plan=PLAN,
        evaluation=EvaluationConfig(batch_size=120),
        checkpoint=CheckpointConfig(every_seconds=0.2),
        measure="noise",
    )


def first_variables(config: ExperimentConfig) -> dict[str, Any]:
    """The same on every machine, in float64."""
    net = ResNet(BasicBlock, blocks=(1,), num_classes=10, width=4, small_images=True)
    state = jax.jit(make_initializer(net, make_optimizer(config.optimizer), SIDE))(jax.random.key(0))
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), {"params": state.params, "batch_stats": state.batch_stats}
    )


def main(workdir: Path, data_dir: str, count: int, process: int, coordinator: str, at: Sequence[str]) -> int:
    silence_orbax()
    if count > 1:
        multihost.initialize(multihost.DistributedConfig(coordinator, count, process), heartbeat_seconds=20)
    jax.config.update("jax_enable_x64", True)
    config = experiment(data_dir)
    net: Any = ResNet(BasicBlock, blocks=(1,), num_classes=10, width=4, small_images=True, dtype="float64")
    display = StruckAt(int(at[0]), at[1]) if at else Recorder()
    try:
        planned = planning.make_plan(PLAN, EXAMPLES, config.optimizer)
        summary = loop.run(config, planned, net, workdir, observers=[display], variables=first_variables(config))
    except StepwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    print(summary["updates"], len(display.messages))
    return 0


if __name__ == "__main__":
    folder, data, processes, number, address, *at = sys.argv[1:]
    sys.exit(main(Path(folder), data, int(processes), int(number), address, at))
