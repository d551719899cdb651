"""Table I: ResNet-50 on CIFAR-100 from scratch, A, B, C, D, O with b, 2b, 3b, 4b, b.

    python launch.py train configs/cifar100_resnet50.py --workdir runs/cifar100_resnet50
    python launch.py train configs/cifar100_resnet50.py:baseline --workdir runs/cifar100_resnet50_baseline
    python launch.py report runs/cifar100_resnet50 runs/cifar100_resnet50_baseline --out runs/cifar100_resnet50_report
    python launch.py compare configs/cifar100_resnet50.py --strategies rows --seeds 3 \
        --workdir runs/cifar100_resnet50_rows

The paper reports top-1 66.34 % and top-5 90.72 %, and for the baseline 64.94 % and 88.62 %; for the sets alone (rows A
to O, 20 epochs each) top-1 35.79, 46.73, 52.52, 55.29 and 57.28 %. The third command draws Figure 4: both curves by
epoch, with the stage boundaries.

Cost: 3,000,000 samples in 74,940 updates; baseline 5,000,000 samples in 208,300 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The paper's main experiment: the last row of Table I."""
    return _paper.experiment("I", "cifar100", "resnet50")


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table I, by name."""
    return _paper.rows(get_config(), _paper.EACH_SET_ALONE)
