"""Figure 1: ResNet-18 on CIFAR-100 from scratch, 20 epochs with a drop at 10; M, b and lambda vary one at a time.

    python launch.py train configs/figure1_resnet18.py --workdir runs/figure1_resnet18
    python launch.py train configs/figure1_resnet18.py:b96 --workdir runs/figure1_b96
    python launch.py compare configs/figure1_resnet18.py --strategies rows --seeds 3 --workdir runs/figure1_rows

(a) M: rows A, B, C, D, O, with b = 24 and lambda = 0.001. (b) b: rows b12, b24, b48, b72, b96 on set A, 20 % of the
data, as Section III-B.2 says, with lambda = 0.001. (c) lambda: rows rate0.1, rate0.01, rate0.001, rate0.0001 with
b = 24 on set O, because the paper names no set there. A and b24 are the same run, and so are O and rate0.001. To draw
a panel, top-1 on the test set by epoch, run `launch.py report` on its rows. The first command trains row O.

The paper prints no scores. According to its text, a larger M is better and faster, a small b is fast and noisy,
lambda = 0.1 oscillates, 0.0001 is too slow, and 0.001 is stable and best.

Cost: 1,000,000 samples in 41,660 updates for set O; all 14 rows 8,000,000 samples in 325,580 updates.
"""

import dataclasses
from typing import Any

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """ResNet-18 on the whole of CIFAR-100 for 20 epochs."""
    return _single_set("1a/O", "O")


def get_rows() -> dict[str, ExperimentConfig]:
    """The curves of the three panels, by name."""
    sizes = {name: _single_set(f"1a/{name}", name) for name in _paper.SETS}
    batches = {f"b{b}": _single_set(f"1b/b{b}", "A", batch_size=b) for b in (12, 24, 48, 72, 96)}
    rates = {f"rate{x}": _single_set(f"1c/rate{x}", "O", learning_rate=x) for x in (0.1, 0.01, 0.001, 0.0001)}
    return sizes | batches | rates


def _single_set(reproduces: str, name: str, **plan: Any) -> ExperimentConfig:
    """One curve: a single set, with b = 24 and lambda = 0.001 unless `plan` differs."""
    config = _paper.experiment("1a", "cifar100", "resnet18", **_paper.EACH_SET_ALONE[name], **plan)
    return dataclasses.replace(config, reproduces=reproduces)
