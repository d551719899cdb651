"""Table V, b = 12: Res2Net-50 on Food-101 from ImageNet weights, A, B, C, D, O with b, 2b, 3b, 4b, b, constant rate.

    mkdir -p weights
    python launch.py import-weights res2net50_26w_4s res2net50_26w_4s-06e79181.pth \
        --out weights/res2net50_26w_4s.safetensors
    python launch.py train configs/food101_res2net50_imagenet_b12.py --workdir runs/food101_res2net50_imagenet_b12
    python launch.py train configs/food101_res2net50_imagenet_b12.py:baseline \
        --workdir runs/food101_res2net50_imagenet_b12_baseline
    python launch.py compare configs/food101_res2net50_imagenet_b12.py --strategies rows --seeds 3 \
        --workdir runs/food101_res2net50_imagenet_b12_rows

The paper reports top-1 85.92 % and top-5 97.11 %, and for the baseline 84.69 % and 96.59 %. The learning rate is lambda
in every stage: Section IV-C keeps it constant.

The weights are the authors' for ImageNet. Fetch res2net50_26w_4s-06e79181.pth from their repository
(https://github.com/Res2Net/Res2Net-PretrainedModels); import-weights checks it and writes it where this file looks for
it, relative to the working directory. Use --model.initial_weights FILE for another path. The classifier is initialized
from the seed.

Cost: 4,545,000 samples in 227,200 updates; baseline 7,575,000 samples in 631,200 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The step-wise row of Table V with b = 12."""
    return _paper.experiment(
        "V-b12",
        "food101",
        "res2net50_26w_4s",
        initial_weights=_paper.RES2NET_WEIGHTS,
        learning_rate_rule="constant",
        batch_size=12,
    )


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table V with b = 12, by name."""
    return _paper.rows(get_config())
