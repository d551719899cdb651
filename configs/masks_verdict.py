"""The verdict on masked and bare faces: Table VII's rows with b = 24 on a small ResNet, at the paper's own epochs.

    python launch.py train configs/masks_verdict.py --workdir runs/masks_verdict --data.root FOLDER
    python launch.py compare configs/masks_verdict.py --strategies rows --seeds 10 --margin 1 --tune-trials 3 \
        --plan-design masks.toml --data.root FOLDER
    python launch.py compare --design masks.toml --workdir runs/masks --data.root FOLDER

FOLDER holds train/mask, train/no_mask, test/mask and test/no_mask. With the paper's counts, 2,509 training and 639 test
images, the baseline takes 250,900 samples and the staged run 150,540. The paper starts Res2Net-50 at 224 x 224 pixels
from ImageNet weights; this network starts from random ones at 32 x 32. lambda is the centre of the grid on which every
row is tuned. Each seed draws its own subsets A to D.
"""

import dataclasses
from typing import Any

from stepwise_jax import DataConfig, EvaluationConfig, ExperimentConfig, ModelConfig, PlanConfig

_ROWS: dict[str, dict[str, Any]] = {
    "stepwise": {},
    "baseline": {"strategy": "baseline"},
    "constant_b": {"batch_multipliers": (1.0,) * 5},
    "constant_rate": {"learning_rate_rule": "constant"},
    "constant_rate_and_b": {"learning_rate_rule": "constant", "batch_multipliers": (1.0,) * 5},
    "A-C-O": {"fractions": (0.2, 0.6, 1.0), "batch_multipliers": (1.0, 2.0, 1.0)},
    "A-O": {"fractions": (0.2, 1.0), "batch_multipliers": (1.0, 2.0)},
}
"""Fields of the plan by row."""


def get_config() -> ExperimentConfig:
    """A, B, C, D, O with b, 2b, 3b, 4b, b and lambda_i: the row of Table VII that reaches 100 %."""
    return ExperimentConfig(
        data=DataConfig(name="image_folder", image_size=32, subset_draw="seeded"),
        model=ModelConfig(name="resnet_small", small_images=True, stem_stride=2, width=8),
        plan=PlanConfig(learning_rate=0.05),
        evaluation=EvaluationConfig(every_epochs=5),
    )


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows of Table VII with b = 24, by name, and the two splits of Section IV-C; stepwise is the reference."""
    config = get_config()
    return {name: dataclasses.replace(config, plan=dataclasses.replace(config.plan, **_ROWS[name])) for name in _ROWS}
