r"""Which noise orders the losses: lambda M / b, lambda / b, or what is measured? 10,000 photographs of CIFAR-100.

    python launch.py compare configs/noise_predictors.py --strategies rows --seeds 5 \
        --workdir runs/noise_predictors --data.root FOLDER
    python launch.py train configs/noise_predictors.py --workdir runs/noise --data.root FOLDER

FOLDER holds CIFAR-100 as 60,000 files, train/CLASS/*.jpg and test/CLASS/*.jpg. Each row trains in two stages. The first
has a quarter of the images or all of them, a batch of 24 or 96, and a rate of 0.1 or 0.4, for as many epochs as make
the sum of the learning rates over its updates 83.2. The second, whose sum is 83.2 too, is the same in each row. The
noise of the first stage, as multiples of that of the first row:

    row            images   batch   rate   epochs   lambda M / b   lambda / b
    quarter         2,500      96    0.1       32              1            1
    quarter_b       2,500      24    0.1        8              4            4
    quarter_rate    2,500      96    0.4        8              4            4
    whole          10,000      96    0.1        8              4            1
    whole_b        10,000      24    0.1        2             16            4
    whole_rate     10,000      96    0.4        2             16            4

`whole` has the lambda M / b of `quarter_b` and `quarter_rate`, and the lambda / b of `quarter`. Rows that end in `_b`
and `_rate` have both formulas in common, and differ in the measured noise alone. The number of images changes what a
network learns, whatever the noise: hence the common second stage, which softens that and does not remove it.
"""

import dataclasses
from functools import partial

from stepwise_jax import DataConfig, EvaluationConfig, ExperimentConfig, ModelConfig, PlanConfig, Stage

_ROWS = {
    "quarter": {"fraction": 0.25, "divisor": 1, "factor": 1.0},
    "quarter_b": {"fraction": 0.25, "divisor": 4, "factor": 1.0},
    "quarter_rate": {"fraction": 0.25, "divisor": 1, "factor": 4.0},
    "whole": {"fraction": 1.0, "divisor": 1, "factor": 1.0},
    "whole_b": {"fraction": 1.0, "divisor": 4, "factor": 1.0},
    "whole_rate": {"fraction": 1.0, "divisor": 1, "factor": 4.0},
}


def crossed(plan: PlanConfig, examples: int, *, fraction: float, divisor: int, factor: float) -> tuple[Stage, ...]:
    """Return a stage with b / divisor and factor * lambda, and after it one with b and lambda on all examples.

    Both have the same sum of learning rates over their updates.

    Args:
      plan: has b, lambda, and the epochs of the second stage.
      examples: M.
      fraction: share of the examples in the first stage.
      divisor: of the first stage's batch size.
      factor: of the first stage's learning rate.
    """
    last = Stage("O", 1.0, examples, plan.batch_size, plan.learning_rate, plan.epochs_per_stage)
    epochs = max(1, round(plan.epochs_per_stage / (fraction * divisor * factor)))
    size, rate = plan.batch_size // divisor, factor * plan.learning_rate
    return Stage("crossed", fraction, round(fraction * examples), size, rate, epochs), last


def get_rows() -> dict[str, ExperimentConfig]:
    """The rows that cross the predictors."""
    config = get_config()
    plans = {
        name: dataclasses.replace(config.plan, strategy=partial(crossed, **fields)) for name, fields in _ROWS.items()
    }
    return {name: dataclasses.replace(config, plan=plan) for name, plan in plans.items()}


def get_config() -> ExperimentConfig:
    """A quarter of the images, then all of them, with the same batch and rate."""
    return ExperimentConfig(
        data=DataConfig(name="image_folder", image_size=32, train_examples=10_000, subset_draw="seeded"),
        model=ModelConfig(name="resnet_small", small_images=True, width=8),
        plan=PlanConfig(
            fractions=(0.25, 1.0),
            batch_multipliers=(1.0, 1.0),
            batch_size=96,
            learning_rate=0.1,
            learning_rate_rule="constant",
            epochs_per_stage=8,
            decay_every=8,
        ),
        evaluation=EvaluationConfig(every_epochs=8),
        measure="noise",
    )
