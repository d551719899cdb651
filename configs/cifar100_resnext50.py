"""Table II, first half: ResNeXt-50 on CIFAR-100 from scratch, A, B, C, D, O with b, 2b, 3b, 4b, b.

    python launch.py train configs/cifar100_resnext50.py --workdir runs/cifar100_resnext50
    python launch.py train configs/cifar100_resnext50.py:baseline --workdir runs/cifar100_resnext50_baseline
    python launch.py report runs/cifar100_resnext50 runs/cifar100_resnext50_baseline \
        runs/cifar100_res2next50 runs/cifar100_res2next50_baseline --out runs/figure6
    python launch.py compare configs/cifar100_resnext50.py --strategies rows --seeds 3 \
        --workdir runs/cifar100_resnext50_rows

The paper reports top-1 66.80 % and top-5 90.19 %, and for the baseline 65.58 % and 88.67 %. The third command draws
Figure 6 from these two runs and those of cifar100_res2next50.py.

Cost: 3,000,000 samples in 74,940 updates; baseline 5,000,000 samples in 208,300 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The last row of Table II's first half."""
    return _paper.experiment("II-ResNeXt-50", "cifar100", "resnext50_32x4d")


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table II's first half, by name."""
    return _paper.rows(get_config())
