"""Section IV-B.2: Res2Net-50 on CIFAR-100 from scratch, A, B, C, D, O with b, 2b, 3b, 4b, b.

    python launch.py train configs/cifar100_res2net50.py --workdir runs/res2net50
    python launch.py train configs/cifar100_res2net50.py --workdir runs/res2net50_baseline --plan.strategy baseline

The paper reports top-1 67.04 % and top-5 90.65 %, and for the baseline 66.65 % and 89.15 %. Cost: 3 million samples at
224 x 224 pixels in 74,940 updates, and 5 million in 208,300 for the baseline.
"""

from configs import _paper
from stepwise_jax.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """The paper's second network."""
    return _paper.experiment("cifar100", "res2net50_26w_4s")
