"""CIFAR-10 and CIFAR-100 in their original file formats, with few images."""

import io
import pickle
import struct
from typing import Any

import numpy as np

NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": [f"fine_{label}" for label in range(100)],
}
BATCH = 6
TEST = 8


class Images:
    """Random images with labels, batch by batch, as they lie in the files: channel by channel, row by row."""

    def __init__(self, name: str):
        random = np.random.default_rng(7)
        classes, batches = len(NAMES[name]), 5 if name == "cifar10" else 1
        self.train = [self._batch(random, BATCH, classes) for _ in range(batches)]
        self.test = self._batch(random, TEST, classes)

    @staticmethod
    def _batch(random: np.random.Generator, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
        return random.integers(0, 256, (count, 3072), np.uint8), random.integers(0, classes, count)

    def split(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [N, 32, 32, 3], labels."""
        parts = self.train if split == "train" else [self.test]
        pixels = np.concatenate([pixels for pixels, _ in parts])
        rgb = np.stack([pixels[:, 1024 * channel :][:, :1024].reshape(-1, 32, 32) for channel in range(3)], -1)
        return rgb, np.concatenate([labels for _, labels in parts])


class Python2Pickler(pickle._Pickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Writes strings and bytes as Python 2 wrote its only kind of string."""

    dispatch: Any = dict(pickle._Pickler.dispatch)  # pyright: ignore[reportAttributeAccessIssue] # noqa: RUF012

    def save_string(self: Any, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(value)
    # NumPy's own name for the place before its version 2.
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def binary_files(name: str) -> dict[str, bytes]:
    images = Images(name)

    def batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
        first = [labels] if name == "cifar10" else [labels // 5, labels]
        return np.concatenate([np.stack(first, 1), pixels], 1).astype(np.uint8).tobytes()

    lines = "".join(f"{label}\n" for label in NAMES[name]).encode()
    if name == "cifar10":
        folder = "cifar-10-batches-bin"
        files = {f"data_batch_{number}.bin": batch(*part) for number, part in enumerate(images.train, 1)}
        files |= {"test_batch.bin": batch(*images.test), "batches.meta.txt": lines + b"\n", "readme.html": b"<html>"}
    else:
        folder = "cifar-100-binary"
        files = {"train.bin": batch(*images.train[0]), "test.bin": batch(*images.test)}
        files |= {"fine_label_names.txt": lines, "coarse_label_names.txt": b"coarse\n" * 20}
    return {f"{folder}/{file}": content for file, content in files.items()}


def python_files(name: str, dump=python2_pickle) -> dict[str, bytes]:
    images, ten = Images(name), name == "cifar10"

    def batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
        names = [f"picture_{row}.png" for row in range(len(labels))]
        fields = {"batch_label": "batch", "data": pixels, "filenames": names}
        numbers = labels.tolist()
        return dump(fields | ({"labels": numbers} if ten else {"fine_labels": numbers, "coarse_labels": numbers}))

    if ten:
        folder = "cifar-10-batches-py"
        files = {f"data_batch_{number}": batch(*part) for number, part in enumerate(images.train, 1)}
        files |= {"test_batch": batch(*images.test)}
        files["batches.meta"] = dump({"num_cases_per_batch": BATCH, "label_names": NAMES[name], "num_vis": 3072})
    else:
        folder = "cifar-100-python"
        files = {"train": batch(*images.train[0]), "test": batch(*images.test)}
        files["meta"] = dump({"fine_label_names": NAMES[name], "coarse_label_names": ["coarse"] * 20})
    return {f"{folder}/{file}": content for file, content in files.items()}
