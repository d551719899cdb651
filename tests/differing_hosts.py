"""One of two processes that are about to train different runs, or that see different files, case by case.

python tests/differing_hosts.py FOLDER PROCESS COORDINATOR

Prints a line for each case: its name, the exit status, and the error.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from conftest import TinyNet

from stepwise_jax.data import datasets
from stepwise_jax.errors import StepwiseError
from stepwise_jax.experiment.config import CheckpointConfig, DataConfig, EvaluationConfig, ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.state import make_initializer
from stepwise_jax.plans import planning
from stepwise_jax.runtime import files, multihost
from stepwise_jax.runtime.process import silence_orbax
from stepwise_jax.training import loop, start


def experiment(folder: Path) -> ExperimentConfig:
    images = DataConfig(name="image_folder", root=str(folder / "images"), data_dir=str(folder / "data"), image_size=8)
    plan = PlanConfig(
        fractions=(1.0,), batch_multipliers=(1.0,), batch_size=12, learning_rate=0.05, epochs_per_stage=2, decay_every=1
    )
    checkpoint, evaluation = CheckpointConfig(every_seconds=1e9), EvaluationConfig(batch_size=12)
    return ExperimentConfig(data=images, plan=plan, evaluation=evaluation, checkpoint=checkpoint)


def first_variables(config: ExperimentConfig, seed: int) -> dict[str, Any]:
    initialize = make_initializer(TinyNet(num_classes=3), make_optimizer(config.optimizer), config.data.image_size)
    state = jax.jit(initialize)(jax.random.key(seed))
    return jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})


def run(config: ExperimentConfig, workdir: Path, **options: Any) -> None:
    def plan() -> Any:
        return planning.make_plan(config.plan, datasets.sizes(config.data).train, config.optimizer)

    loop.run(config, multihost.on_all_processes(plan), TinyNet(num_classes=3), workdir, **options)


def see_later(workdir: Path, seen: Path) -> Path:
    """A name under which this process sees the workdir some time after the other has filled it."""

    def link() -> None:
        while not (workdir / "subsets.json").exists():
            time.sleep(0.05)
        time.sleep(1)
        seen.symlink_to(workdir)

    threading.Thread(target=link, daemon=True).start()
    return seen


def cases(folder: Path, odd: bool) -> Iterator[tuple[str, Any]]:
    """Names and runs; of the two processes one is `odd`."""
    config = experiment(folder)
    fields = {"seed": 1, "plan.carry": "weights", "evaluation.every_epochs": 2, "plan.decay_factor": 0.5}
    for name, value in fields.items():
        changed = override_fields(config, {name: value}) if odd else config
        yield name, lambda changed=changed: run(changed, folder / "run")
    weights = first_variables(config, seed=int(odd))
    yield "other weights", lambda: run(config, folder / "run", variables=weights)
    yield "no weights", lambda: run(config, folder / "run", variables=None if odd else weights)
    # Where the images are may differ, as long as they are the same ones.
    places = {"data.root": str(folder / "others"), "data.data_dir": str(folder / "data of others")}
    others = override_fields(config, places) if odd else config
    yield "other images", lambda: run(others, folder / "run")
    missing = override_fields(config, {"data.root": str(folder / "missing")}) if odd else config
    yield "no images", lambda: run(missing, folder / "run")
    hash_program = start._hash_program
    start._hash_program = lambda: f"program {odd}"
    yield "another program", lambda: run(config, folder / "run")
    start._hash_program = hash_program
    own = folder / f"own {odd}"
    files.LAG_SECONDS = 1.0
    yield "a workdir of its own", lambda: run(config, own)
    files.LAG_SECONDS = 60.0
    lagging = see_later(folder / "lagging", folder / "seen") if odd else folder / "lagging"
    yield "a workdir that is seen later", lambda: run(config, lagging)


def main(folder: Path, process: int, coordinator: str) -> None:
    silence_orbax()
    multihost.initialize(multihost.DistributedConfig(coordinator, 2, process), heartbeat_seconds=20)
    for name, case in cases(folder, odd=process == 1):
        try:
            case()
            print(json.dumps([name, 0, ""]), flush=True)
        except StepwiseError as error:
            print(json.dumps([name, error.status, str(error)]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
