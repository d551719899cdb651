"""A trained network in one file that needs nothing of stepwise-jax: StableHLO and its description, by `jax.export`."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from stepwise_jax.errors import InputError
from stepwise_jax.inference.predict import make_classify
from stepwise_jax.inference.trained import Trained
from stepwise_jax.workdir.files import atomic_write
from stepwise_jax.workdir.folder import installed_version
from stepwise_jax.workdir.json_files import write_json

SUFFIXES = (".stablehlo", ".safetensors")

PLATFORMS = ("cpu", "cuda", "tpu")


def check_target(path: Path) -> None:
    """Refuses a file that cannot be the export's, before any work.

    Raises:
      InputError: for another suffix than `SUFFIXES`, a folder that does not exist, or a file that does.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out {path}: its name must end with {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")
    written = [path, description_path(path)] if path.suffix == ".stablehlo" else [path]
    there = [each for each in written if os.path.lexists(each)]
    if there:
        raise InputError(f"--out {path}: {there[0].name} is there already: remove it, or name another file")


def description_path(path: Path) -> Path:
    """The JSON document beside a StableHLO file."""
    return path.with_suffix(".json")


def describe(trained: Trained) -> dict[str, Any]:
    """What whoever uses the network must know: what it takes, what it answers, what it is and was made with."""
    signed, model = trained.signature, trained.experiment.model
    shape = {"small_images": model.small_images, "width": model.width, "blocks": model.blocks}
    return {
        "classes": signed.classes,
        "image_size": signed.preprocessing.image_size,
        "channels": signed.image_shape[2],
        "mean": signed.preprocessing.mean,
        "std": signed.preprocessing.std,
        "dataset": signed.dataset,
        "network": model.name,
        "network_shape": shape,
        "updates": trained.updates,
        "versions": {name: installed_version(name) for name in ("jax", "jaxlib", "flax", "stepwise-jax")},
    }


def export_stablehlo(trained: Trained) -> jax.export.Exported:
    """uint8 images [b, size, size, channels] of any number b to probabilities float32 [b, classes].

    The weights and the normalisation are part of it; images have to be scaled to the size before.
    """
    classify, signed = make_classify(trained), trained.signature
    size = signed.preprocessing.image_size
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, size, size, signed.image_shape[2]), jnp.uint8)
    variables = jax.device_get(trained.variables)
    whole = jax.jit(lambda images: classify(variables, images))
    return jax.export.export(whole, platforms=PLATFORMS)(images)


def write_stablehlo(trained: Trained, path: Path) -> None:
    """Writes the network, serialised, and beside it a `.json` that describes it; each appears whole or not at all."""
    exported = export_stablehlo(trained)
    content = exported.serialize()
    size, channels = trained.signature.preprocessing.image_size, trained.signature.image_shape[2]
    description = describe(trained) | {
        "input": {
            "dtype": "uint8",
            "shape": ["b", size, size, channels],
            "colours": "RGB" if channels == 3 else "grey",
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
        # Half of an export would stand in the way of the next attempt.
        path.unlink()
        raise
