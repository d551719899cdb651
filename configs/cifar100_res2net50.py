"""Section IV-B.2: Res2Net-50 on CIFAR-100 from scratch, A, B, C, D, O with b, 2b, 3b, 4b, b.

    python launch.py train configs/cifar100_res2net50.py --workdir runs/cifar100_res2net50
    python launch.py train configs/cifar100_res2net50.py:baseline --workdir runs/cifar100_res2net50_baseline
    python launch.py report runs/cifar100_res2net50 runs/cifar100_res2net50_baseline \
        --out runs/cifar100_res2net50_report
    python launch.py compare configs/cifar100_res2net50.py --strategies rows --seeds 3 \
        --workdir runs/cifar100_res2net50_rows

The paper reports top-1 67.04 % and top-5 90.65 %, and for the baseline 66.65 % and 89.15 %. The third command draws
Figure 5: both curves by epoch, with the stage boundaries.

Cost: 3,000,000 samples in 74,940 updates; baseline 5,000,000 samples in 208,300 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The paper's second network."""
    return _paper.experiment("Res2Net-50", "cifar100", "res2net50_26w_4s")


def get_rows() -> dict[str, ExperimentConfig]:
    """The two runs that the text reports, by name."""
    return _paper.rows(get_config())
