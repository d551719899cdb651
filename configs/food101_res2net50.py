"""Table IV, from scratch: Res2Net-50 on Food-101, A, B, C, D, O with b, 2b, 3b, 4b, b and a constant learning rate.

    python launch.py train configs/food101_res2net50.py --workdir runs/table4

The paper reports top-1 54.99 % and top-5 81.50 %, and for the baseline 53.56 % and 81.03 %. Cost: 4.5 million samples
at 224 x 224 pixels, and 7.6 million for the baseline.
"""

from configs import _paper
from stepwise_jax.config import ExperimentConfig, PlanConfig


def get_config() -> ExperimentConfig:
    """The step-wise row of Table IV, without ImageNet weights."""
    return _paper.experiment("food101", "res2net50_26w_4s", PlanConfig(learning_rate_rule="constant"))
