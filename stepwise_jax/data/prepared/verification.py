"""Checks that a prepared data set still holds the images that were stored."""

from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.prepared import index
from stepwise_jax.data.prepared.reading import checked_labels
from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.errors import InputError


def verify(dataset: Dataset, progress: ProgressCallback) -> None:
    """Hash all images again and compare with the `content_sha256` recorded when they were prepared.

    Raises:
      InputError: naming the splits that differ; or if records cannot be read, a label has no class, or no hash is
        recorded.
    """
    folder, recorded = str(dataset.builder.data_dir), (dataset.builder.info.metadata or {}).get("content_sha256")
    if not recorded:
        raise InputError(
            f"{folder!r} has no recorded hash of its images: only data sets written by `prepare` can be verified"
        )
    found = {split: _content_sha256(dataset, split, progress) for split in recorded}
    differing = [split for split in recorded if found[split] != recorded[split]]
    if differing:
        differences = ", ".join(
            f"{split} has SHA-256 {found[split]} instead of {recorded[split]}" for split in differing
        )
        raise InputError(f"{folder!r} has changed since it was prepared: {differences}; remove it and prepare it again")


def _content_sha256(dataset: Dataset, split: str, progress: ProgressCallback) -> str:
    """SHA-256 over the SHA-256 of each image, in the order on disk."""
    found = index.read_index(dataset, split, progress)
    checked_labels(dataset, split, found.labels)
    return found.content_sha256
