"""Measures how many images a second each loader brings to the device, relative to decoding and scaling alone."""

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
from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.runtime import sharding
from stepwise_jax.runtime.threads import usable_cores

DISTINCT = 64
"""Number of different generated images; further files are copies of them."""

DEFAULTS: dict[str, Any] = {
    "images": 2048,
    "side": 512,
    "image_size": 224,
    "batch_size": 96,
    "epochs": 2,
    "streamed_only": False,
}
"""Default options of `bench --data`."""

WHOLE, REDUCED = "OpenCV alone, whole", "OpenCV alone, reduced"

_DECODE_FLAGS = {WHOLE: cv2.IMREAD_COLOR_RGB, REDUCED: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2}

_DECODE_SECONDS = 3.0


def measure_data(
    images: int,
    side: int,
    image_size: int,
    batch_size: int,
    epochs: int,
    progress: ProgressCallback,
    *,
    resident: bool = True,
) -> Any:
    """Measures the streaming and the resident loader on generated JPEGs of side x side pixels, scaled to image_size.

    Args:
      images: number of JPEGs, in two classes.
      side: their height and width in pixels.
      image_size: height and width of the network's input.
      batch_size: images in a batch.
      epochs: passes over all images with each loader.
      progress: reports preparation.
      resident: whether to measure the resident loader too, which keeps all decoded images in memory.

    Returns:
      `{"cores", "jpeg_bytes", "peak_bytes": [...], "rows": [{"way", "images_per_second", "per_core", "of_bare",
      "of_bare_reduced"}]}`. Speeds are medians over the epochs; the ways alternate, except for the resident loader.
      `of_bare` is the speed relative to a loop that decodes images in memory on all cores and scales them bilinearly,
      `of_bare_reduced` relative to one that decodes them at half their size. `peak_bytes` is the peak memory of the
      process after each epoch of streaming.
    """
    encoded = [_make_jpeg(number, side) for number in range(min(images, DISTINCT))]
    with tempfile.TemporaryDirectory() as folder:
        data, dataset = _prepare_dataset(Path(folder), encoded, images, image_size, progress)
        order = _make_order(images, batch_size)
        speeds, peaks = _streaming_speeds(data, dataset, encoded, order, epochs)
        if resident:
            speeds["resident, decoded once"] = _resident_speeds(data, dataset, order, epochs, progress)
    rows, size = [_row(way, each, speeds) for way, each in speeds.items()], sum(map(len, encoded)) // len(encoded)
    return {"cores": usable_cores(), "jpeg_bytes": size, "rows": rows, "peak_bytes": peaks}


def _streaming_speeds(
    data: DataConfig, dataset: Dataset, encoded: list[bytes], order: np.ndarray, epochs: int
) -> tuple[dict[str, list[float]], list[int]]:
    """Images a second of bare decoding and of the streaming loader, in turn, and the peak memory after each epoch."""
    loader = _make_streaming_loader(data, dataset)
    speeds, peaks = defaultdict[str, list[float]](list), list[int]()
    for _ in range(epochs):
        for way, flag in _DECODE_FLAGS.items():
            speeds[way].append(_decode_speed(encoded, data.image_size, flag))
        speeds["streamed"].append(_loader_speed(loader, order, jax.block_until_ready))
        peaks.append(peak_memory())
    loader.close()
    return speeds, peaks


def _row(way: str, speeds: list[float], all_speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians over the epochs; ratios compare speeds of the same epoch."""
    speed = statistics.median(speeds)
    shares = {
        field: statistics.median(own / reference for own, reference in zip(speeds, all_speeds[decoder], strict=True))
        for field, decoder in (("of_bare", WHOLE), ("of_bare_reduced", REDUCED))
    }
    return {"way": way, "images_per_second": speed, "per_core": speed / usable_cores(), **shares}


def _make_jpeg(number: int, side: int) -> bytes:
    """A picture with detail at every scale, as photographs have."""
    random, pixels = np.random.default_rng(number), np.zeros((side, side, 3), np.float32)
    for scale in (2, 4, 8, 16, 32, 64):
        coarse = random.normal(size=(-(-side // scale), -(-side // scale), 3)).astype(np.float32)
        pixels += scale**0.5 * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(128 + 8 * pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _prepare_dataset(
    folder: Path, encoded: list[bytes], images: int, image_size: int, progress: ProgressCallback
) -> tuple[DataConfig, Dataset]:
    for number in range(images):
        path = folder / "images" / "train" / str(number % 2) / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[number % len(encoded)])
    for label in ("0", "1"):
        (folder / "images" / "test" / label).mkdir(parents=True)
        (folder / "images" / "test" / label / "0.jpg").write_bytes(encoded[0])
    root, prepared = str(folder / "images"), str(folder / "prepared")
    data = DataConfig(name="image_folder", root=root, data_dir=prepared, image_size=image_size)
    datasets.prepare(data, progress)
    return data, datasets.open_dataset(data)


def _make_order(images: int, batch_size: int) -> np.ndarray:
    whole = images // batch_size * batch_size
    return np.random.default_rng(0).permutation(images)[:whole].reshape(-1, batch_size).astype(np.int32)


def _decode_speed(encoded: list[bytes], image_size: int, flag: int) -> float:
    """Images a second of all cores together, decoding and scaling JPEGs in memory."""
    arrays = [np.frombuffer(each, np.uint8) for each in encoded]

    def decode(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            image = cv2.imdecode(arrays[done % len(arrays)], flag)
            assert image is not None
            cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_LINEAR)
            done += 1
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(usable_cores()) as pool:
        counts = list(pool.map(decode, [started + _DECODE_SECONDS] * usable_cores()))
    return sum(counts) / (time.perf_counter() - started)


def _make_streaming_loader(data: DataConfig, dataset: Dataset) -> StreamingLoader:
    labels, _ = datasets.labels_and_ids(dataset, "train")
    read = datasets.make_image_reader(dataset, "train", data.image_size)
    return StreamingLoader(
        read, labels, datasets.image_shape(dataset, data.image_size), sharding.make_mesh(), data.workers
    )


def _resident_speeds(
    data: DataConfig, dataset: Dataset, order: np.ndarray, epochs: int, progress: ProgressCallback
) -> list[float]:
    examples = datasets.load(dataset, "train", data.image_size, progress)
    resident = place_resident(examples.images, examples.labels, sharding.make_mesh(), sharded=False)
    take = jax.jit(lambda images, rows: images[rows])
    loader = ResidentLoader(resident, sharding.make_mesh())

    def gather(rows: Any) -> None:
        take(resident.images, rows).block_until_ready()

    # The first epoch compiles.
    return [_loader_speed(loader, order, gather) for _ in range(epochs + 1)][1:]


def _loader_speed(loader: Loader, order: np.ndarray, wait: Callable[[Any], Any]) -> float:
    """Images a second over one epoch; `wait` waits for a batch on the device."""
    started = time.perf_counter()
    for inputs in loader.stacked_batches(order, ([number] for number in range(len(order)))):
        wait(inputs)
    return order.size / (time.perf_counter() - started)


def peak_memory() -> int:
    """Peak memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
