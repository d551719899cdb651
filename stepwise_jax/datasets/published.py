"""Sizes of the data sets of the paper and of this project, known without having them."""

from stepwise_jax.datasets.dataset import Sizes

SIZES = {
    "digits": Sizes(1437, 360, 10),
    "cifar10": Sizes(50_000, 10_000, 10),
    "cifar100": Sizes(50_000, 10_000, 100),
    "food101": Sizes(75_750, 25_250, 101),
    "birdsnap": Sizes(47_386, 2_443, 500),
    # 639 test images, not the 539 of the paper's text: its accuracies are fractions of 639.
    "face_mask": Sizes(2_509, 639, 2),
}
