"""Table I, last row: ResNet-50 on CIFAR-100 from scratch, A, B, C, D, O with b, 2b, 3b, 4b, b.

    python launch.py train configs/cifar100_resnet50.py --workdir runs/table1
    python launch.py train configs/cifar100_resnet50.py --workdir runs/table1_baseline --plan.strategy baseline

The paper reports top-1 66.34 % and top-5 90.72 %, and for the baseline 64.94 % and 88.62 %. Cost: 3 million samples at
224 x 224 pixels in 74,940 updates, and 5 million in 208,300 for the baseline.
"""

from configs import _paper
from stepwise_jax.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """The paper's main experiment."""
    return _paper.experiment("cifar100", "resnet50")
