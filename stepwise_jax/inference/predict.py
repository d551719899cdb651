"""Classifies images with a trained network."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stepwise_jax.data import images
from stepwise_jax.data.batches import evaluation_batch_size
from stepwise_jax.data.progress import ProgressCallback, ProgressMeter
from stepwise_jax.functional.preprocessing import preprocess
from stepwise_jax.inference import image_files
from stepwise_jax.inference.trained import TrainedNetwork
from stepwise_jax.runtime.threads import map_ahead


class FilePrediction(NamedTuple):
    """The prediction for one image file, or why there is none."""

    path: str
    probabilities: np.ndarray | None
    """float32 [C]; None if the file cannot be read."""
    fault: str | None = None
    """Why the file cannot be read."""


def make_classifier(trained: TrainedNetwork) -> Callable[[Any, jax.Array], jax.Array]:
    """Make a pure function `variables, images uint8 [b, H, W, C] -> probabilities float32 [b, classes]`."""
    network, preprocessing = trained.network, trained.signature.preprocessing

    def classify(variables: Any, images: jax.Array) -> jax.Array:
        logits = network.apply(variables, preprocess(images, preprocessing), train=False)
        return jax.nn.softmax(jnp.asarray(logits).astype(jnp.float32))

    return classify


def classify_files(
    trained: TrainedNetwork, paths: Sequence[str], progress: ProgressCallback = lambda *_: None
) -> Iterator[FilePrediction]:
    """Classify image files in order; threads read files ahead.

    Args:
      trained: from `open_trained`.
      paths: JPEG, PNG, WebP or BMP files of any size and colour mode.
      progress: called as `progress(done, total, what)` if there is more than one batch.
    """
    # All batches have the same shape, so that one program is compiled.
    size = max(1, evaluation_batch_size(trained.experiment.evaluation.batch_size, len(paths)))
    classify = partial(jax.jit(make_classifier(trained)), trained.variables)
    meter = ProgressMeter(progress if len(paths) > size else lambda *_: None, len(paths), "classifying images")
    with images.refuse_decompression_bombs():
        read = partial(image_files.read_image, shape=trained.signature.image_shape)
        pixels = (meter.wait_for(future) for future in map_ahead(read, paths))
        for first in range(0, len(paths), size):
            part = paths[first : first + size]
            yield from _predict_batch(classify, part, [next(pixels) for _ in part], size)
            meter.advance(len(part))
    meter.finish()


def _predict_batch(
    classify: Callable[[np.ndarray], jax.Array], paths: Sequence[str], read: Sequence[np.ndarray | str], size: int
) -> list[FilePrediction]:
    """Classify one batch, padded to `size` images; `read` holds pixels, or the error of a file."""
    readable = [pixels for pixels in read if not isinstance(pixels, str)]
    if not readable:
        return [FilePrediction(path, None, str(fault)) for path, fault in zip(paths, read, strict=True)]
    padded = np.stack([*readable, *[np.zeros_like(readable[0])] * (size - len(readable))])
    probabilities = iter(np.asarray(classify(padded)))
    return [
        FilePrediction(path, None, pixels) if isinstance(pixels, str) else FilePrediction(path, next(probabilities))
        for path, pixels in zip(paths, read, strict=True)
    ]


def rank_classes(path: str, probabilities: np.ndarray, classes: Sequence[str], top: int) -> dict[str, Any]:
    """The entry of one image in the output of `predict --json`: `{"image", "classes": [{"name", "probability"}, ...]}`.

    Args:
      path: of the image.
      probabilities: float [C].
      classes: their names; equal probabilities keep this order.
      top: how many classes to list at most.
    """
    best = np.argsort(-probabilities, kind="stable")[:top]
    return {
        "image": path,
        "classes": [{"name": classes[label], "probability": float(probabilities[label])} for label in best],
    }
