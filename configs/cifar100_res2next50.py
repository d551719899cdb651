"""Table II, second half: Res2NeXt-50 on CIFAR-100 from scratch, A, B, C, D, O with b, 2b, 3b, 4b, b.

    python launch.py train configs/cifar100_res2next50.py --workdir runs/cifar100_res2next50
    python launch.py train configs/cifar100_res2next50.py:baseline --workdir runs/cifar100_res2next50_baseline
    python launch.py report runs/cifar100_resnext50 runs/cifar100_resnext50_baseline \
        runs/cifar100_res2next50 runs/cifar100_res2next50_baseline --out runs/figure6
    python launch.py compare configs/cifar100_res2next50.py --strategies rows --seeds 3 \
        --workdir runs/cifar100_res2next50_rows

The paper reports top-1 66.98 % and top-5 90.59 %, and for the baseline 66.41 % and 88.74 %. The third command draws
Figure 6 from these two runs and those of cifar100_resnext50.py.

Cost: 3,000,000 samples in 74,940 updates; baseline 5,000,000 samples in 208,300 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The last row of Table II's second half."""
    return _paper.experiment("II-Res2NeXt-50", "cifar100", "res2next50")


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table II's second half, by name."""
    return _paper.rows(get_config())
