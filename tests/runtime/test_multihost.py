"""Two processes of one run: each reads its share of every batch, and together they feed and score what one would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Once

from stepwise_jax.data.sampler import epoch_order

ROOT = Path(__file__).parents[2]
EXAMPLES, BATCH, DEVICES_EACH = 53, 12, 2

SCRIPT = """
import json, sys
sys.path.insert(0, "tests")
import jax, numpy as np
jax.distributed.initialize(sys.argv[1], num_processes=int(sys.argv[2]), process_id=int(sys.argv[3]))
from conftest import TinyNet
from stepwise_jax.runtime import sharding
from stepwise_jax.data.sampler import PlanSampler
from stepwise_jax.data.batches import pad_rows
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.training.measurements.timing import Timer
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.metrics import scores_from_sums
from stepwise_jax.data.loaders import StreamingLoader
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.training.programs.compilation import CompiledFunctions
from stepwise_jax.plans.stage import Stage
from stepwise_jax.functional.state import make_initializer

images = np.random.default_rng(0).integers(0, 256, (53, 8, 8, 3), dtype=np.uint8)
labels = np.arange(53, dtype=np.int32) % 10
mesh, seen = sharding.make_mesh(), []
whole = sharding.replicated(mesh)
optimizer = make_optimizer(OptimizerConfig())

def read(rows):
    seen.append(rows.tolist())
    return images[rows]

loader = StreamingLoader(read, labels, (8, 8, 3), mesh, workers=2)
order = PlanSampler(0, [Stage("O", 1.0, 53, 12, 0.1, epochs=2)], [np.arange(53)])
preprocessing = Preprocessing(8, (0.5,) * 3, (0.3,) * 3)
compiled = CompiledFunctions(TinyNet(), optimizer, preprocessing, mesh, Timer(), lambda _: None)
state = jax.jit(make_initializer(TinyNet(), optimizer, 8), out_shardings=whole)(jax.random.key(0))
state = state._replace(opt_state=set_hyperparameters(state.opt_state, learning_rate=0.05))
together = jax.jit(lambda array: array, out_shardings=whole)
batches, losses = [], []
for inputs in loader.stacked_batches(order, [[update] for update in range(len(order))]):
    whole_batch = [together(leaf) for leaf in (inputs.labels[0], inputs.images[0].sum((1, 2, 3)))]
    batches.append([np.asarray(leaf).tolist() for leaf in whole_batch])
    state, loss = compiled.train(state, None, inputs)
    losses += np.asarray(loss).tolist()
loader.close()
trained, seen = list(seen), []
padded, masks = pad_rows(53, compiled.evaluation_batch_size(11, 53))
counts = [compiled.evaluate(state, None, *each) for each in zip(loader.batches(padded), masks, strict=True)]
scores = scores_from_sums(compiled.metrics, counts, 53)
if jax.process_index() == 0:
    print(json.dumps({"sums": images.sum((1, 2, 3)).tolist(), "labels": labels.tolist()}))
print(json.dumps({"read": trained, "scored": seen, "batches": batches, "losses": losses, "scores": scores}), flush=True)
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def run_processes(count: int, devices_each: int) -> list[list[Any]]:
    """What each of `count` processes printed."""
    flags = f"--xla_force_host_platform_device_count={devices_each} --xla_backend_optimization_level=0"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    address = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, address, str(count), str(number)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip
    messages = [process.communicate(timeout=280) for process in started]
    assert [process.returncode for process in started] == [0] * count, messages
    return [[json.loads(line) for line in out.splitlines() if line.startswith("{")] for out, _ in messages]


@pytest.fixture(scope="module")
def two(once: Once) -> list[list[Any]]:
    return once("two-hosts", lambda _: run_processes(2, DEVICES_EACH))


@pytest.fixture(scope="module")
def one(once: Once) -> list[list[Any]]:
    return once("one-host", lambda _: run_processes(1, 2 * DEVICES_EACH))


def batches() -> list[list[int]]:
    rows = np.arange(EXAMPLES)
    return [batch.tolist() for epoch in (1, 2) for batch in epoch_order(0, 1, epoch, rows, BATCH)]


def test_two_processes_feed_the_batches_of_one(two):
    (data, first), (second,) = two
    expected = [[[data[name][row] for row in batch] for name in ("labels", "sums")] for batch in batches()]
    assert first["batches"] == second["batches"] == expected


def test_each_process_reads_its_share_of_every_batch_and_no_example_comes_twice(two):
    shares = [sorted(process[-1]["read"]) for process in two]
    assert shares == [sorted(batch[half] for batch in batches()) for half in (slice(0, 6), slice(6, 12))]
    # An epoch is four batches of 12: 48 of 53 examples.
    per_epoch = [np.ravel(batches()[epoch : epoch + 4]) for epoch in (0, 4)]
    assert all(len(set(epoch.tolist())) == 48 for epoch in per_epoch)


def test_two_processes_learn_and_score_what_one_does(one, two):
    ((_, alone),), ((_, first), (second,)) = one, two
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert first["scores"] == second["scores"] == pytest.approx(alone["scores"], rel=1e-4)


def test_an_odd_test_set_is_scored_once_each(two):
    scored = sorted(row for process in two for batch in process[-1]["scored"] for row in batch)
    # 53 images in five batches of 12 over four devices: the last image fills up the last batch.
    assert scored == sorted([*range(53), *[52] * 7])
