"""TFDS's own data sets, prepared by TFDS's own builders, which need TensorFlow."""

import importlib.util
from pathlib import Path

import tensorflow_datasets as tfds

from stepwise_jax.data.prepared import opening
from stepwise_jax.errors import InputError


def knows(name: str) -> bool:
    """Whether NAME[/CONFIG][:VERSION] is a data set that TFDS has a builder for."""
    return name.split("/")[0].split(":")[0] in tfds.list_builders(with_community_datasets=False)


def prepare(name: str, given: Path | None, data_dir: Path) -> None:
    """Downloads and prepares a data set with TFDS's builder, as array_record; TFDS shows the progress.

    Args:
      name: NAME[/CONFIG][:VERSION].
      given: folder of what TFDS cannot download itself, its manual_dir.
      data_dir: where prepared data sets are kept.

    Raises:
      InputError: if TensorFlow is not installed, the data set has no images with labels, or TFDS fails.
    """
    if not _has_tensorflow():
        raise InputError(
            f"{name} is a data set of TFDS's own, which only TensorFlow can prepare: install the extra 'tensorflow' "
            "(pip install 'stepwise-jax[tensorflow]')"
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        fault = opening.features_fault(builder.info)
        if fault is None:
            config = tfds.download.DownloadConfig(manual_dir=given, try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
    # TFDS and the builders of its data sets raise anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"TFDS cannot prepare {name}: {reason}") from error
    if fault is not None:
        raise InputError(f"{name} {fault}")


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None
