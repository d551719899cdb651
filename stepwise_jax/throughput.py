"""How many images a second reach the device, each way, against decoding and scaling alone."""

import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from PIL import Image

from stepwise_jax import datasets, parallel
from stepwise_jax.batches import Order
from stepwise_jax.config import DataConfig
from stepwise_jax.datasets.ahead import cores
from stepwise_jax.datasets.meter import Progress
from stepwise_jax.feed import Feed, ResidentFeed, StreamedFeed, place_resident

DISTINCT = 64
"""Different images that are made; more are copies of them under other names."""

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
      `{"cores", "jpeg_bytes", "peak_bytes": [...], "rows": [{"way", "images_per_second", "per_core", "of_bare"}]}`,
      where `of_bare` is the share of what a loop reaches that decodes and scales in memory on as many cores in the
      same way, and `peak_bytes` the most memory of the process after each epoch of streaming.
    """
    encoded = [_jpeg(number, side) for number in range(min(images, DISTINCT))]
    with tempfile.TemporaryDirectory() as folder:
        data, dataset = _prepared(Path(folder), encoded, images, image_size, progress)
        order = _orders(images, batch_size, epochs)
        bare = {name: _bare_speed(encoded, image_size, flag) for name, flag in _BARE.items()}
        streamed, peaks = _streamed_speed(data, dataset, order, batch_size, images // batch_size)
        speeds = bare | {"streamed": streamed}
        if resident:
            speeds["resident, decoded once"] = _resident_speed(data, dataset, order, batch_size, progress)
    rows = [
        {"way": way, "images_per_second": speed, "per_core": speed / cores(), "of_bare": speed / bare[SAME]}
        for way, speed in speeds.items()
    ]
    return {"cores": cores(), "jpeg_bytes": sum(map(len, encoded)) // len(encoded), "rows": rows, "peak_bytes": peaks}


SAME = "OpenCV alone, reduced"
_BARE = {"OpenCV alone, whole": cv2.IMREAD_COLOR_RGB, SAME: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2}


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
) -> tuple[DataConfig, datasets.Dataset]:
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


def _orders(images: int, batch_size: int, epochs: int) -> Order:
    random = np.random.default_rng(0)
    whole = images // batch_size * batch_size
    rows = [random.permutation(images)[:whole].reshape(-1, batch_size) for _ in range(epochs)]
    return np.concatenate(rows).astype(np.int32)


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


def _streamed_speed(
    data: DataConfig, dataset: datasets.Dataset, order: Order, batch_size: int, per_epoch: int
) -> tuple[float, list[int]]:
    labels, _ = datasets.index(dataset, "train")
    read = datasets.make_read(dataset, "train", data.image_size)
    shape = datasets.image_shape(dataset, data.image_size)
    feed = StreamedFeed(read, labels, shape, parallel.make_mesh(), data.workers)
    peaks: list[int] = []

    def note(number: int) -> None:
        if (number + 1) % per_epoch == 0:
            peaks.append(peak_memory())

    speed = _speed(feed, order, batch_size, jax.block_until_ready, note)
    feed.close()
    return speed, peaks


def _resident_speed(
    data: DataConfig, dataset: datasets.Dataset, order: Order, batch_size: int, progress: Progress
) -> float:
    examples = datasets.load(dataset, "train", data.image_size, progress)
    resident = place_resident(examples.images, examples.labels, parallel.make_mesh(), sharded=False)
    take = jax.jit(lambda images, rows: images[rows])
    take(resident.images, jax.device_put(np.zeros((1, batch_size), np.int32)))
    feed = ResidentFeed(resident, parallel.make_mesh())
    return _speed(feed, order, batch_size, lambda rows: take(resident.images, rows).block_until_ready(), lambda _: None)


def _speed(feed: Feed, order: Order, batch_size: int, take: Callable[[Any], Any], done: Callable[[int], None]) -> float:
    started = time.perf_counter()
    calls: Iterator[list[int]] = ([number] for number in range(len(order)))
    for number, picked in enumerate(feed.calls(order, calls)):
        take(picked)
        done(number)
    return len(order) * batch_size / (time.perf_counter() - started)


def peak_memory() -> int:
    """The most bytes of memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
