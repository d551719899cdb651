"""Prepares TFDS's own data sets with its builders, which need TensorFlow."""

import importlib.util
from pathlib import Path

import tensorflow_datasets as tfds

from stepwise_jax.data.prepared import opening
from stepwise_jax.errors import InputError


def has_builder(name: str) -> bool:
    """Whether TFDS has a builder for the data set NAME[/CONFIG][:VERSION]."""
    return name.split("/")[0].split(":")[0] in tfds.list_builders(with_community_datasets=False)


def prepare(name: str, manual_dir: Path | None, data_dir: Path) -> None:
    """Download and prepare a data set with TFDS's builder, as array_record; TFDS shows the progress.

    Args:
      name: NAME[/CONFIG][:VERSION].
      manual_dir: folder of the files that TFDS cannot download itself.
      data_dir: the folder of prepared data sets.

    Raises:
      InputError: if TensorFlow is not installed, the data set has no images with labels, or TFDS fails.
    """
    if not _has_tensorflow():
        raise InputError(
            f"{name} is one of TFDS's own data sets, and only TensorFlow can prepare them: install the extra "
            "'tensorflow' (pip install 'stepwise-jax[tensorflow]')"
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        problem = opening.feature_problem(builder.info)
        if problem is None:
            config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
    # TFDS and its builders raise errors of any type.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"TFDS cannot prepare {name}: {reason}") from error
    if problem is not None:
        raise InputError(f"{name} {problem}")


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None
