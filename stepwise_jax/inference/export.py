"""Exports a trained network by `jax.export` to StableHLO, which runs without stepwise-jax, with a JSON description."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.serialization import model_name
from stepwise_jax.inference.predict import make_classifier
from stepwise_jax.inference.trained import TrainedNetwork
from stepwise_jax.runtime.files import atomic_write, check_output
from stepwise_jax.workdir.folder import installed_version
from stepwise_jax.workdir.json_files import write_json

EXPORT_SUFFIXES = (".stablehlo", ".safetensors")

PLATFORMS = ("cpu", "cuda", "tpu")

RESIZING = (
    "Decode with OpenCV, upright by the EXIF tag, to RGB. A JPEG whose shorter side is at least 2, 4 or 8 times the "
    "image size: decode it at a half, a quarter or an eighth (the largest reduction that applies, IMREAD_REDUCED_*), "
    "then scale with INTER_LINEAR. Any other image: scale with INTER_AREA if neither side grows, else INTER_LINEAR."
)
"""How `stepwise_jax.data.images.decode_into` makes the network's input from an encoded image."""


def check_export_path(path: Path) -> None:
    """Check the path of an export before any work.

    Raises:
      InputError: for a suffix not in `EXPORT_SUFFIXES`, a folder that does not exist or cannot be written, or a file
        that exists already.
    """
    if path.suffix not in EXPORT_SUFFIXES:
        raise InputError(f"--out {path}: its name must end with {' or '.join(EXPORT_SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")
    targets = [path, description_path(path)] if path.suffix == ".stablehlo" else [path]
    existing = [target for target in targets if os.path.lexists(target)]
    if existing:
        raise InputError(f"--out {path}: {existing[0].name} exists already: remove it, or name another file")
    check_output("--out", path)


def description_path(path: Path) -> Path:
    """The JSON document beside a StableHLO file."""
    return path.with_suffix(".json")


def describe_network(trained: TrainedNetwork) -> dict[str, Any]:
    """Everything needed to use the network: its input, its classes, its architecture, and the versions of libraries."""
    signature, model = trained.signature, trained.experiment.model
    names = ("small_images", "stem_stride", "width", "blocks")
    shape = {name: getattr(model, name) for name in names}
    return {
        "classes": signature.classes,
        "image_size": signature.preprocessing.image_size,
        "channels": signature.image_shape[2],
        "mean": signature.preprocessing.mean,
        "std": signature.preprocessing.std,
        "dataset": signature.dataset,
        "network": model_name(trained.experiment),
        "network_shape": shape,
        "weights": trained.weights,
        "updates": trained.updates,
        "planned_updates": trained.planned_updates,
        "versions": {name: installed_version(name) for name in ("jax", "jaxlib", "flax", "stepwise-jax")},
    }


def export_stablehlo(trained: TrainedNetwork) -> jax.export.Exported:
    """Export the function of uint8 images [b, size, size, channels], for any b, to float32 probabilities [b, classes].

    The weights and the normalisation are included; the caller must scale images to the size, as `RESIZING` says, for
    the probabilities of `predict`.
    """
    classify, signature = make_classifier(trained), trained.signature
    size = signature.preprocessing.image_size
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, size, size, signature.image_shape[2]), jnp.uint8)
    variables = jax.device_get(trained.variables)
    function = jax.jit(lambda images: classify(variables, images))
    return jax.export.export(function, platforms=PLATFORMS)(images)


def write_stablehlo(trained: TrainedNetwork, path: Path) -> None:
    """Write the serialised network and a `.json` file that describes it, each atomically."""
    exported = export_stablehlo(trained)
    content = exported.serialize()
    size, channels = trained.signature.preprocessing.image_size, trained.signature.image_shape[2]
    description = describe_network(trained) | {
        "input": {
            "dtype": "uint8",
            "shape": ["b", size, size, channels],
            "colours": "RGB" if channels == 3 else "grey",
            "resizing": RESIZING,
        },
        "output": {"dtype": "float32", "shape": ["b", len(trained.signature.classes)], "values": "probabilities"},
        "platforms": exported.platforms,
        "calling_convention_version": exported.calling_convention_version,
    }
    with atomic_write(path) as file:
        file.write(content)
    try:
        write_json(description_path(path), description)
    except OSError:
        # An incomplete export would make the next attempt fail.
        path.unlink()
        raise
