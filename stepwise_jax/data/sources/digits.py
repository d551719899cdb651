"""The digits that come with scikit-learn: 1,797 greyscale scans of 8x8 pixels, which need no download."""

import functools

import numpy as np

from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.data.splits import draw_test_split
from stepwise_jax.experiment.config import DataConfig

VERSION = "1.0.0"

_TEST_FRACTION = 0.2

_LEVELS = 16


def source(data: DataConfig, progress: ProgressCallback) -> Source:
    """1,437 training and 360 test images, uint8 [8, 8, 1]; the test images are a fixed draw by class."""
    del data, progress
    images, labels = _scans()
    ids = [f"digits_{row:04d}" for row in range(len(labels))]
    mask = draw_test_split(ids, labels.tolist(), _TEST_FRACTION)
    splits = {name: _split(ids, labels, np.flatnonzero(rows)) for name, rows in (("train", ~mask), ("test", mask))}
    return Source(
        name="digits",
        version=VERSION,
        class_names=tuple(map(str, range(10))),
        origin="scikit-learn's digits",
        splits=splits,
        read=lambda name: images[int(name.removeprefix("digits_"))],
        array_shape=(8, 8, 1),
        size_bytes=images.nbytes,
    )


def _split(ids: list[str], labels: np.ndarray, rows: np.ndarray) -> SourceSplit:
    return SourceSplit(tuple(ids[row] for row in rows), tuple(labels[rows].tolist()))


@functools.cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    # Imported here because scikit-learn takes a second to load, and other data sets do not need it.
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)
    images = np.rint(levels * (255 / _LEVELS)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return images, labels
