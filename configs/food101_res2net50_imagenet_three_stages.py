"""Table VI: Res2Net-50 on Food-101 from ImageNet weights, A, C, O with b, 2b, b, constant rate.

    mkdir -p weights
    python launch.py import-weights res2net50_26w_4s res2net50_26w_4s-06e79181.pth \
        --out weights/res2net50_26w_4s.safetensors
    python launch.py train configs/food101_res2net50_imagenet_three_stages.py \
        --workdir runs/food101_res2net50_imagenet_three_stages
    python launch.py train configs/food101_res2net50_imagenet_three_stages.py:baseline \
        --workdir runs/food101_res2net50_imagenet_three_stages_baseline
    python launch.py compare configs/food101_res2net50_imagenet_three_stages.py --strategies rows --seeds 3 \
        --workdir runs/food101_res2net50_imagenet_three_stages_rows

The paper reports top-1 86.37 % and top-5 97.13 %, and for the baseline, which has 60 epochs here, 85.73 % and 96.22 %.
The learning rate is lambda in every stage: Section IV-C keeps it constant. That of the baseline drops once, after 30
epochs.

The weights are the authors' for ImageNet. Fetch res2net50_26w_4s-06e79181.pth from their repository
(https://github.com/Res2Net/Res2Net-PretrainedModels); import-weights checks it and writes it where this file looks for
it, relative to the working directory. Use --model.initial_weights FILE for another path. The classifier is initialized
from the seed.

Cost: 2,727,000 samples in 94,660 updates; baseline 4,545,000 samples in 189,360 updates.
"""

from stepwise_jax import ExperimentConfig

from . import _paper


def get_config() -> ExperimentConfig:
    """The step-wise row of Table VI."""
    return _paper.experiment(
        "VI",
        "food101",
        "res2net50_26w_4s",
        initial_weights=_paper.RES2NET_WEIGHTS,
        learning_rate_rule="constant",
        fractions=(0.2, 0.6, 1.0),
        batch_multipliers=(1.0, 2.0, 1.0),
        baseline_epochs=60,
    )


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table VI, by name."""
    return _paper.rows(get_config())
