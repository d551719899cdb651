"""How many images a second reach the device, each way, against decoding and scaling alone."""

import io
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from PIL import Image

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.loaders import Loader, ResidentLoader, StreamingLoader, place_resident
from stepwise_jax.data.progress import Progress
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.runtime import sharding
from stepwise_jax.runtime.threads import cores

DISTINCT = 64
"""Different images that are made; more are copies of them under other names."""

DEFAULTS: dict[str, Any] = {
    "images": 2048,
    "side": 512,
    "image_size": 224,
    "batch_size": 96,
    "epochs": 2,
    "streamed_only": False,
}
"""What `bench --data` takes where the command line does not say."""

_BARE_SECONDS = 3.0


def measure_data(
    images: int, side: int, image_size: int, batch_size: int, epochs: int, progress: Progress, *, resident: bool = True
) -> Any:
    """Delivers made JPEGs of side x side pixels, scaled to image_size, by both ways.

    Args:
      images: JPEGs, in two classes.
      side: their height and width in pixels.
      image_size: what the network sees.
      batch_size: images in a batch.
      epochs: passes over all images by each way.
      progress: told of what is prepared.
      resident: whether to measure that way too; all images then lie in memory, decoded.

    Returns:
      `{"cores", "jpeg_bytes", "peak_bytes": [...], "rows": [{"way", "images_per_second", "per_core", "of_bare",
      "of_bare_reduced"}]}`: medians over the epochs, in each of which every way has its turn. `of_bare` is the share
      of what a loop reaches on as many cores that decodes what lies in memory and scales it bilinearly,
      `of_bare_reduced` of one that decodes at half the size; `peak_bytes` is the most memory that the process had
      after each epoch of streaming.
    """
    encoded = [_jpeg(number, side) for number in range(min(images, DISTINCT))]
    with tempfile.TemporaryDirectory() as folder:
        data, dataset = _prepared(Path(folder), encoded, images, image_size, progress)
        order = _order(images, batch_size)
        streamed, peaks = _streamed(data, dataset), []
        speeds: dict[str, list[float]] = defaultdict(list)
        for _ in range(epochs):
            for way, flag in _BARE.items():
                speeds[way].append(_bare_speed(encoded, image_size, flag))
            speeds["streamed"].append(_speed(streamed, order, jax.block_until_ready))
            peaks.append(peak_memory())
        streamed.close()
        if resident:
            speeds["resident, decoded once"] = _resident_speeds(data, dataset, order, epochs, progress)
    rows = [_row(way, each, speeds) for way, each in speeds.items()]
    return {"cores": cores(), "jpeg_bytes": sum(map(len, encoded)) // len(encoded), "rows": rows, "peak_bytes": peaks}


def _row(way: str, speeds: list[float], all_speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians over the turns; shares are of what was measured in the same turn."""
    speed = statistics.median(speeds)
    shares = {
        field: statistics.median(ours / theirs for ours, theirs in zip(speeds, all_speeds[bare], strict=True))
        for field, bare in (("of_bare", WHOLE), ("of_bare_reduced", REDUCED))
    }
    return {"way": way, "images_per_second": speed, "per_core": speed / cores(), **shares}


WHOLE, REDUCED = "OpenCV alone, whole", "OpenCV alone, reduced"

_BARE = {WHOLE: cv2.IMREAD_COLOR_RGB, REDUCED: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2}


def _jpeg(number: int, side: int) -> bytes:
    """A picture with detail at every scale, as photographs have."""
    random, pixels = np.random.default_rng(number), np.zeros((side, side, 3), np.float32)
    for scale in (2, 4, 8, 16, 32, 64):
        coarse = random.normal(size=(-(-side // scale), -(-side // scale), 3)).astype(np.float32)
        pixels += scale**0.5 * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(128 + 8 * pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _prepared(
    folder: Path, encoded: list[bytes], images: int, image_size: int, progress: Progress
) -> tuple[DataConfig, Dataset]:
    for number in range(images):
        path = folder / "images" / "train" / str(number % 2) / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[number % len(encoded)])
    for label in ("0", "1"):
        (folder / "images" / "test" / label).mkdir(parents=True)
        (folder / "images" / "test" / label / "0.jpg").write_bytes(encoded[0])
    root, kept = str(folder / "images"), str(folder / "prepared")
    data = DataConfig(name="image_folder", root=root, data_dir=kept, image_size=image_size)
    datasets.prepare(data, progress)
    return data, datasets.open_dataset(data)


def _order(images: int, batch_size: int) -> np.ndarray:
    whole = images // batch_size * batch_size
    return np.random.default_rng(0).permutation(images)[:whole].reshape(-1, batch_size).astype(np.int32)


def _bare_speed(encoded: list[bytes], image_size: int, flag: int) -> float:
    """Images a second of every core decoding and scaling what lies in memory."""
    arrays = [np.frombuffer(each, np.uint8) for each in encoded]

    def work(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            image = cv2.imdecode(arrays[done % len(arrays)], flag)
            assert image is not None
            cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_LINEAR)
            done += 1
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        counts = list(pool.map(work, [started + _BARE_SECONDS] * cores()))
    return sum(counts) / (time.perf_counter() - started)


def _streamed(data: DataConfig, dataset: Dataset) -> StreamingLoader:
    labels, _ = datasets.index(dataset, "train")
    read = datasets.make_read(dataset, "train", data.image_size)
    return StreamingLoader(
        read, labels, datasets.image_shape(dataset, data.image_size), sharding.make_mesh(), data.workers
    )


def _resident_speeds(
    data: DataConfig, dataset: Dataset, order: np.ndarray, epochs: int, progress: Progress
) -> list[float]:
    examples = datasets.load(dataset, "train", data.image_size, progress)
    resident = place_resident(examples.images, examples.labels, sharding.make_mesh(), sharded=False)
    take = jax.jit(lambda images, rows: images[rows])
    feed = ResidentLoader(resident, sharding.make_mesh())
    speeds = [
        _speed(feed, order, lambda rows: take(resident.images, rows).block_until_ready()) for _ in range(epochs + 1)
    ]
    return speeds[1:]


def _speed(feed: Loader, order: np.ndarray, take: Callable[[Any], Any]) -> float:
    """Images a second over one epoch."""
    started = time.perf_counter()
    for inputs in feed.calls(order, ([number] for number in range(len(order)))):
        take(inputs)
    return order.size / (time.perf_counter() - started)


def peak_memory() -> int:
    """The most bytes of memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
