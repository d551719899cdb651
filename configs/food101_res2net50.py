"""Table IV, from scratch: Res2Net-50 on Food-101, A, B, C, D, O with b, 2b, 3b, 4b, b and a constant learning rate.

    python launch.py train configs/food101_res2net50.py --workdir runs/food101_res2net50
    python launch.py train configs/food101_res2net50.py:baseline --workdir runs/food101_res2net50_baseline
    python launch.py compare configs/food101_res2net50.py --strategies rows --seeds 3 \
        --workdir runs/food101_res2net50_rows

The paper reports top-1 54.99 % and top-5 81.50 %, and for the baseline 53.56 % and 81.03 %; for the sets alone (rows A
to O, 20 epochs each, without weight sharing) top-1 12.08, 15.71, 17.03, 18.26 and 37.86 %. The learning rate is lambda
in every stage: Section IV-C keeps it constant.

Cost: 4,545,000 samples in 113,600 updates; baseline 7,575,000 samples in 315,600 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The step-wise row of Table IV, without ImageNet weights."""
    return _paper.experiment("IV-scratch", "food101", "res2net50_26w_4s", learning_rate_rule="constant")


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table IV, without ImageNet weights, by name."""
    return _paper.rows(get_config(), _paper.EACH_SET_ALONE)
