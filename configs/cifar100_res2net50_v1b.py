"""Section IV-B.2: Res2Net-50 v1b (26w x 4s) on CIFAR-100 from scratch, A, B, C, D, O with b, 2b, 3b, 4b, b.

    python launch.py train configs/cifar100_res2net50_v1b.py --workdir runs/cifar100_res2net50_v1b
    python launch.py train configs/cifar100_res2net50_v1b.py:baseline --workdir runs/cifar100_res2net50_v1b_baseline
    python launch.py compare configs/cifar100_res2net50_v1b.py --strategies rows --seeds 3 \
        --workdir runs/cifar100_res2net50_v1b_rows

The paper reports top-1 66.11 %, and for the baseline 64.79 %; no top-5.

Cost: 3,000,000 samples in 74,940 updates; baseline 5,000,000 samples in 208,300 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """Res2Net-50 with a deep stem and average-pooled shortcuts."""
    return _paper.experiment("Res2Net-50-v1b", "cifar100", "res2net50_v1b_26w_4s")


def get_rows() -> dict[str, ExperimentConfig]:
    """The two runs that the text reports, by name."""
    return _paper.rows(get_config())
