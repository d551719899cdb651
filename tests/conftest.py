"""What the tests share: a digits data set prepared once, a network that compiles in a moment, a run in one call."""

import atexit
import fcntl
import json
import os
import shutil
import tempfile
from importlib.metadata import version

# Before jax is imported, and in the environment, where workers and the processes that tests start find it: no program
# is compiled twice in one run of the tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="stepwise-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Where nothing may be written beside the sources, each of a hundred processes would compile them anew.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = os.environ["JAX_COMPILATION_CACHE_DIR"]
# Tests compile far more than they compute: less optimisation saves most of their time, and so does compiling a program
# in one piece where each worker has but a core.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
    # XLA ends a process that names a flag which it no longer has.
    + (" --xla_cpu_use_fusion_emitters=false" if version("jax").startswith("0.10.") else ""),
)

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from stepwise_jax.cli.display import Display
from stepwise_jax.data import datasets
from stepwise_jax.experiment.config import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    ModelConfig,
    PlanConfig,
)
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans import planning
from stepwise_jax.runtime.process import collect_garbage_rarely, ignore_abandoned_reads
from stepwise_jax.training import loop
from stepwise_jax.training.measurements.timing import ProfiledEpoch


def keep_to_own_cores() -> None:
    """Gives each worker of a test run, and the processes that it starts, its share of the cores.

    Tiny steps spread over all cores mostly wait for each other: two workers on two cores took a tenth longer.
    """
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: count] or cores)


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """After pytest has begun to listen: what a launched process does not tell is no warning here either."""
    ignore_abandoned_reads()
    keep_to_own_cores()
    collect_garbage_rarely()


class TinyNet(nn.Module):
    """One convolution with batch norm and a classifier: all that the loop can tell of a network."""

    num_classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(8, (3, 3), strides=2, dtype=self.dtype)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x.reshape(len(x), -1)).astype(jnp.float32)


class Recorder(Display):
    """A display that keeps the messages."""

    def __init__(self):
        super().__init__(verbose=True)
        self.messages: list[str] = []

    def show_message(self, text: str) -> None:
        self.messages.append(text)


Once = Callable[[str, Callable[[Path], Any]], Any]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """What `make(folder)` returns, as JSON has it, made once for all the workers of a test run: `once(name, make)`."""
    # Beside a worker's own folder lie those of the other workers; beside that of a run without workers, earlier runs'.
    own = tmp_path_factory.getbasetemp()
    parent = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def get(name: str, make: Callable[[Path], Any]) -> Any:
        folder = parent / f"once-{name}"
        folder.mkdir(exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made = folder / "made.json"
            if not made.exists():
                made.write_text(json.dumps(make(folder)))
        return json.loads(made.read_text())

    return get


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, prepared once for all the workers of a test run; preparing waits for whoever prepares first."""
    folder = tmp_path_factory.getbasetemp().parent / "prepared"
    datasets.prepare(DataConfig(name="digits", data_dir=str(folder)), lambda *_: None)
    return folder


@pytest.fixture
def prepared_digits(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the digits where they look for data sets."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


@pytest.fixture
def experiment(data_dir: Path) -> ExperimentConfig:
    """Three short stages on the digits at their own size."""
    return ExperimentConfig(
        data=DataConfig(name="digits", data_dir=str(data_dir), image_size=8),
        model=ModelConfig(name="resnet_small", small_images=True, width=4),
        plan=PlanConfig(
            fractions=(0.1, 0.5, 1.0),
            batch_multipliers=(1, 2, 1),
            batch_size=32,
            learning_rate=0.05,
            epochs_per_stage=2,
            decay_every=1,
        ),
        evaluation=EvaluationConfig(batch_size=100),
        checkpoint=CheckpointConfig(every_seconds=1e9),
    )


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Grows by one with each compilation, by JAX's own events."""
    seen: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


Train = Callable[..., dict[str, Any]]


@pytest.fixture
def train(experiment: ExperimentConfig) -> Train:
    """Trains the tiny network in a folder: `train(folder, network=..., **{"plan.batch_size": 16})`."""

    def run(
        folder: Path,
        network: nn.Module | None = None,
        display: Display | None = None,
        profile: ProfiledEpoch | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        config = override_fields(experiment, changes)
        examples = datasets.sizes(config.data).train
        planned = planning.make_plan(config.plan, examples, config.optimizer)
        return loop.run(
            config, planned, network or TinyNet(), folder, observers=[display or Recorder()], profile=profile
        )

    return run


def write_images(folder: Path, count: int, seed: int) -> None:
    """Images of three classes, told apart by their brightness, of several sizes, formats and colours."""
    random = np.random.default_rng(seed)
    kinds = [("RGB", ".jpg"), ("CMYK", ".jpeg"), ("L", ".png"), ("RGBA", ".PNG"), ("L", ".jpg"), ("RGB", ".webp")]
    for label, name in enumerate(("cat", "dog", "old cow")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            mode, suffix = kinds[number % len(kinds)]
            # From smaller than the network's 16 pixels to eight times as large, where JPEGs are decoded reduced.
            sides = random.integers(9, 140, 2)
            pixels = np.clip(random.normal(60 + 70 * label, 30, (*sides, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number:02d}{suffix}")


@pytest.fixture(scope="session")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, trained by the real entry point on `images/train` and scored on `images/test`."""
    import launch

    folder = tmp_path_factory.mktemp("folder_run")
    write_images(folder / "images" / "train", 8, seed=0)
    write_images(folder / "images" / "test", 6, seed=1)
    words = ["--data.name", "image_folder", "--data.root", str(folder / "images"), "--data.data_dir", str(folder / "d")]
    words += ["--model.width", "4", "--model.blocks", "1", "--plan.strategy", "baseline"]
    words += ["--plan.fractions", "1", "--plan.batch_multipliers", "1", "--plan.batch_size", "8"]
    words += ["--plan.baseline_epochs", "8", "--evaluation.batch_size", "10", "--evaluation.every_epochs", "8"]
    config = str(Path(__file__).parents[1] / "configs" / "digits.py")
    assert launch.main(["train", config, "--workdir", str(folder / "run"), *words]) == 0
    return folder


def shrink(config: ExperimentConfig, data: DataConfig, batch_growth: float = 1.0) -> ExperimentConfig:
    """A shipped experiment with its stages and rules, small enough for a test.

    Two network stages of one block, an eighth of the width, an epoch a stage, and two updates in the first. The batch
    grows by `batch_growth` at most: each batch size more is one more program to compile.
    """
    width = max(4, (config.model.width or 64) // 8)
    multipliers = tuple(min(batch_growth, multiplier) for multiplier in config.plan.batch_multipliers)
    plan = dataclasses.replace(
        config.plan,
        epochs_per_stage=1,
        batch_size=round(config.plan.fractions[0] * datasets.sizes(data).train) // 2,
        batch_multipliers=multipliers,
        baseline_epochs=1,
    )
    model = dataclasses.replace(config.model, width=width, blocks=(1, 1))
    return dataclasses.replace(config, data=data, model=model, plan=plan)
