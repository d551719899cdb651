"""Class probabilities of images, by a trained network."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stepwise_jax.data import images
from stepwise_jax.data.batches import evaluation_batch
from stepwise_jax.data.progress import Progress, ProgressMeter
from stepwise_jax.functional.preprocessing import preprocess
from stepwise_jax.inference import image_files
from stepwise_jax.inference.trained import Trained
from stepwise_jax.runtime.threads import run_ahead


class FilePrediction(NamedTuple):
    """What came of one image file."""

    path: str
    probabilities: np.ndarray | None
    """float32 [C]; None where the file cannot be read."""
    fault: str | None = None
    """Why it cannot be read."""


def make_classify(trained: Trained) -> Callable[[Any, jax.Array], jax.Array]:
    """A pure function `variables, images uint8 [b, H, W, C] -> probabilities float32 [b, classes]`."""
    network, preprocessing = trained.network, trained.signature.preprocessing

    def classify(variables: Any, images: jax.Array) -> jax.Array:
        logits = network.apply(variables, preprocess(images, preprocessing), train=False)
        return jax.nn.softmax(jnp.asarray(logits).astype(jnp.float32))

    return classify


def classify_files(trained: Trained, paths: Sequence[str], progress: Progress) -> Iterator[FilePrediction]:
    """An answer for each image file, in their order; files are read ahead by threads.

    Args:
      trained: from `open_trained`.
      paths: of JPEG, PNG, WebP or BMP files of any size and colours.
      progress: called as `progress(done, total, what)`, where there is more than one batch to do.
    """
    # All batches have one shape: one program.
    size = max(1, evaluation_batch(trained.experiment.evaluation.batch_size, len(paths)))
    classify = partial(jax.jit(make_classify(trained)), trained.variables)
    meter = ProgressMeter(progress if len(paths) > size else lambda *_: None, len(paths), "classifying images")
    with images.bombs_refused():
        read = partial(image_files.read, shape=trained.signature.image_shape)
        pixels = (meter.result(future) for future in run_ahead(read, paths))
        for first in range(0, len(paths), size):
            part = paths[first : first + size]
            yield from _predict_batch(classify, part, [next(pixels) for _ in part], size)
            meter.advance(len(part))
    meter.finish()


def _predict_batch(
    classify: Callable[[np.ndarray], jax.Array], paths: Sequence[str], read: Sequence[np.ndarray | str], size: int
) -> list[FilePrediction]:
    """The answers of one batch, filled up to `size` images."""
    good = [pixels for pixels in read if not isinstance(pixels, str)]
    if not good:
        return [FilePrediction(path, None, str(fault)) for path, fault in zip(paths, read, strict=True)]
    filled = np.stack([*good, *[np.zeros_like(good[0])] * (size - len(good))])
    answered = chain(np.asarray(classify(filled)))
    return [
        FilePrediction(path, None, pixels) if isinstance(pixels, str) else FilePrediction(path, next(answered))
        for path, pixels in zip(paths, read, strict=True)
    ]


def rank(path: str, probabilities: np.ndarray, classes: Sequence[str], top: int) -> dict[str, Any]:
    """One image of the document of `predict --json`: `{"image", "classes": [{"name", "probability"}, ...]}`.

    Args:
      path: of the image.
      probabilities: float [C].
      classes: their names; equal probabilities keep this order.
      top: how many classes, if there are so many.
    """
    best = np.argsort(-probabilities, kind="stable")[:top]
    return {
        "image": path,
        "classes": [{"name": classes[label], "probability": float(probabilities[label])} for label in best],
    }
