"""Table IV, from ImageNet weights: Res2Net-50 on Food-101, A, B, C, D, O with b, 2b, 3b, 4b, b, constant rate.

    mkdir -p weights
    python launch.py import-weights res2net50_26w_4s res2net50_26w_4s-06e79181.pth \
        --out weights/res2net50_26w_4s.safetensors
    python launch.py train configs/food101_res2net50_imagenet.py --workdir runs/food101_res2net50_imagenet
    python launch.py train configs/food101_res2net50_imagenet.py:baseline \
        --workdir runs/food101_res2net50_imagenet_baseline
    python launch.py compare configs/food101_res2net50_imagenet.py --strategies rows --seeds 3 \
        --workdir runs/food101_res2net50_imagenet_rows

The paper reports top-1 86.71 % and top-5 97.26 %, and for the baseline 85.73 % and 96.88 %; for the sets alone (rows A
to O, 20 epochs each, all from the ImageNet weights) top-1 75.59, 80.29, 82.04, 83.92 and 86.26 %. The learning
rate is lambda in every stage: Section IV-C keeps it constant.

The weights are the authors' for ImageNet. Fetch res2net50_26w_4s-06e79181.pth from their repository
(https://github.com/Res2Net/Res2Net-PretrainedModels); import-weights checks it and writes it where this file looks for
it, relative to the working directory. Use --model.initial_weights FILE for another path. The classifier is initialized
from the seed.

Cost: 4,545,000 samples in 113,600 updates; baseline 7,575,000 samples in 315,600 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The step-wise row of Table IV, from ImageNet weights."""
    return _paper.experiment(
        "IV-imagenet",
        "food101",
        "res2net50_26w_4s",
        initial_weights=_paper.RES2NET_WEIGHTS,
        learning_rate_rule="constant",
    )


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table IV, from ImageNet weights, by name."""
    return _paper.rows(get_config(), _paper.EACH_SET_ALONE)
