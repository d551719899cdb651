import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Once

from stepwise_jax.data.batches import check_batch_sizes
from stepwise_jax.errors import InputError
from stepwise_jax.plans.stage import Stage

ROOT = Path(__file__).parents[2]


class FourDevices:
    """All that `check_batch_sizes` reads of a mesh."""

    size = 4


def stages(*batch_sizes: int) -> tuple[Stage, ...]:
    return tuple(Stage(f"S{size}", 1.0, 1000, size, 0.1, epochs=1) for size in batch_sizes)


def test_batches_that_divide_over_the_devices_pass():
    mesh: Any = FourDevices()
    check_batch_sizes(stages(4, 24, 96), mesh)


@pytest.mark.parametrize(
    ("size", "nearest"), [(3, "4"), (1, "4"), (5, "4 or 8"), (26, "24 or 28"), (27, "24 or 28"), (98, "96 or 100")]
)
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do(size, nearest):
    mesh: Any = FourDevices()
    with pytest.raises(InputError) as refused:
        check_batch_sizes(stages(24, size), mesh)
    message = f"batch_size of stage 2 (S{size}) is {size}: 4 devices share a batch evenly, so it must be {nearest}; "
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("sizes", "fitting"),
    [
        ((6, 12), "1, 2 or 3 devices"),
        ((6, 10), "1 or 2 devices"),
        ((4, 9), "one device alone"),
        ((3,), "1 or 3 devices"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_the_device_counts_that_fit_the_plan(sizes, fitting):
    mesh: Any = FourDevices()
    with pytest.raises(InputError, match=f"the batches of this plan fit {fitting}$"):
        check_batch_sizes(stages(*sizes), mesh)


# One process with four devices, which trains on all of them and on one alone.
SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, "tests")
import jax, numpy as np
from conftest import TinyNet
from stepwise_jax.runtime import sharding
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.data.batches import pad_rows
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.training.measurements.timing import Timer
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.metrics import scores_from_sums
from stepwise_jax.data.loaders import ResidentLoader, StreamingLoader, place_resident
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.training.programs.compilation import CompiledFunctions
from stepwise_jax.functional.state import digest, make_initializer

random = np.random.default_rng(0)
images = random.integers(0, 64, (37, 8, 8, 3), dtype=np.uint8)
# Each device's share of a batch of 16 has a brightness of its own, so that statistics over a share would be far off.
images[:32] += (np.arange(32) % 16 // 4 * 60).astype(np.uint8)[:, None, None, None]
labels = random.integers(0, 10, 37).astype(np.int32)
rows = np.arange(32, dtype=np.int32).reshape(2, 16)
optimizer = make_optimizer(OptimizerConfig())
quick = {"xla_backend_optimization_level": 0}
first = jax.jit(make_initializer(TinyNet(), optimizer, 8), compiler_options=quick)(jax.random.key(0))
first = first._replace(opt_state=set_hyperparameters(first.opt_state, learning_rate=0.1))

def loader_of(mesh, kind):
    if kind == "streamed":
        return StreamingLoader(lambda rows: images[rows], labels, (8, 8, 3), mesh, workers=2)
    return ResidentLoader(place_resident(images, labels, mesh, sharded=kind == "sharded"), mesh)

def train(mesh, kind):
    whole, loader = sharding.replicated(mesh), loader_of(mesh, kind)
    examples = loader.examples
    preprocessing = Preprocessing(8, (0.5,) * 3, (0.3,) * 3)
    compiled = CompiledFunctions(TinyNet(), optimizer, preprocessing, mesh, Timer(), lambda _: None)
    state, losses = jax.device_put(jax.device_get(first), whole), []
    for placed in loader.stacked_batches(rows, [[0], [1]]):
        for leaf in jax.tree.leaves(placed):
            assert len(leaf.sharding.device_set) == mesh.size
            assert leaf.addressable_shards[0].data.shape[:2] == (1, 16 // mesh.size), "the batch is not spread"
        state, loss = compiled.train(state, examples, placed)
        losses += loss.tolist()
    padded, masks = pad_rows(37, compiled.evaluation_batch_size(10, 37))
    each = zip(loader.batches(padded), masks, strict=True)
    scores = scores_from_sums(compiled.metrics, [compiled.evaluate(state, examples, *batch) for batch in each], 37)
    loader.close()
    return state, losses, scores

def furthest(ours, theirs):
    far = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), ours, theirs)
    return max(jax.tree.leaves(far))

four = sharding.make_mesh()
one = sharding.make_mesh(jax.devices()[:1])
ours, our_losses, our_scores = train(four, "replicated")
theirs, their_losses, their_scores = train(one, "replicated")
share = place_resident(images, labels, four, sharded=True).images.addressable_shards[0].data.shape
others = {kind: train(four, kind) for kind in ("sharded", "streamed")}
copies = all(np.array_equal(s.data, leaf) for leaf in jax.tree.leaves(ours) for s in leaf.addressable_shards)

# A checkpoint of four devices, restored on one.
with Checkpoints(Path(sys.argv[1]), keep=2) as checkpoints:
    checkpoints.save(ours, {"stage": 1})
    checkpoints.wait()
    restored, position = checkpoints.restore(theirs, print)

print(json.dumps({
    "devices": four.size,
    "state": furthest(ours, theirs),
    "share": share,
    "others": {kind: [digest(state) == digest(ours), losses == our_losses, scores == our_scores]
               for kind, (state, losses, scores) in others.items()},
    "moved": furthest(ours.batch_stats, first.batch_stats),
    "losses": [our_losses, their_losses],
    "scores": [list(our_scores.values()), list(their_scores.values())],
    "copies": copies,
    "restored": digest(restored) == digest(ours) and position == {"stage": 1},
    "restored on": len(restored.params["Dense_0"]["kernel"].sharding.device_set),
}))
"""


@pytest.fixture(scope="module")
def result(once: Once) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
        words = [sys.executable, "-W", "error", "-c", SCRIPT, str(folder / "checkpoints")]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return once("four-devices", run)


def test_four_devices_train_as_one_does(result):
    assert result["devices"] == 4
    assert result["state"] < 1e-5
    assert result["moved"] > 1e-2, "batch statistics did not move: the comparison would say nothing"
    assert result["losses"][0] == pytest.approx(result["losses"][1], rel=1e-5)
    assert result["copies"], "the devices hold different states"


def test_images_spread_over_devices_or_streamed_to_them_give_the_same_bits(result):
    assert result["share"] == [10, 8, 8, 3], "37 images and 3 black ones on four devices"
    assert result["others"] == {"sharded": [True] * 3, "streamed": [True] * 3}


def test_four_devices_score_as_one_does(result):
    (top1, top5, loss), theirs = result["scores"]
    assert [top1, top5] == theirs[:2]
    assert 0 < top1 < top5
    assert loss == pytest.approx(theirs[2], rel=1e-5)


def test_a_checkpoint_of_four_devices_is_restored_on_one(result):
    assert result["restored"]
    assert result["restored on"] == 1
