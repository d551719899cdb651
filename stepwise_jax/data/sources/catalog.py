"""The published data sets of the paper and of this project: their sizes, and how each is downloaded and prepared."""

from dataclasses import dataclass

from stepwise_jax.data.dataset import Sizes

PUBLISHED_SIZES = {
    "digits": Sizes(1437, 360, 10),
    "cifar10": Sizes(50_000, 10_000, 10),
    "cifar100": Sizes(50_000, 10_000, 100),
    "food101": Sizes(75_750, 25_250, 101),
    "birdsnap": Sizes(47_386, 2_443, 500),
    # 639 test images, not the 539 of the paper's text: its accuracies are fractions of 639.
    "face_mask": Sizes(2_509, 639, 2),
}


@dataclass(frozen=True)
class Download:
    """A file to download.

    Attributes:
      url: where it is published.
      name: file name.
      size: bytes.
      sha256: hexadecimal.
      preparation_bytes: approximate disk space that preparing takes after the download.
    """

    url: str
    name: str
    size: int
    sha256: str
    preparation_bytes: int


@dataclass(frozen=True)
class PublishedDataset:
    """How a published data set is prepared.

    Attributes:
      version: version of the prepared data; the same as in the module's `Source`.
      module: its function `source(name, path, scratch, progress)` describes the contents of a file or folder.
      takes: a description of that file or folder, for messages.
      download: the file to download if the user has none; None if it may not be redistributed.
    """

    version: str
    module: str
    takes: str
    download: Download | None = None


# Sizes and checksums are those of TensorFlow Datasets 4.9.10, url_checksums/{cifar10,cifar100,food101}.txt.
PUBLISHED = {
    "cifar10": PublishedDataset(
        "1.0.0",
        "stepwise_jax.data.sources.cifar",
        "cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the folder of one of them",
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            200_000_000,
        ),
    ),
    "cifar100": PublishedDataset(
        "1.0.0",
        "stepwise_jax.data.sources.cifar",
        "cifar-100-binary.tar.gz or cifar-100-python.tar.gz, or the folder of one of them",
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            200_000_000,
        ),
    ),
    "food101": PublishedDataset(
        "1.0.0",
        "stepwise_jax.data.sources.food101",
        "food-101.tar.gz, or the folder that it was extracted to",
        Download(
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "food-101.tar.gz",
            4_996_278_331,
            "d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
            # The unpacked and the prepared images.
            10_400_000_000,
        ),
    ),
    "birdsnap": PublishedDataset(
        "1.0.0",
        "stepwise_jax.data.sources.birdsnap",
        "the folder with test_images.txt and, below images/ or download/images/, a folder per species",
    ),
    "face_mask": PublishedDataset(
        "1.0.0",
        "stepwise_jax.data.sources.face_mask",
        "a folder with folders with_mask and without_mask, or with several sources that each have these",
    ),
}
