"""Your own strategy: a configuration file like those in configs/.

python launch.py plan examples/own_strategy.py
python launch.py train examples/own_strategy.py --workdir runs/doubling
"""

from stepwise_jax import DataConfig, ExperimentConfig, ModelConfig, PlanConfig
from stepwise_jax.plans.stage import Stage


def doubling(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Twice the data and twice the batch in each stage, at one learning rate."""
    return tuple(
        Stage(
            name=f"{fraction:.3g}",
            fraction=fraction,
            examples=round(fraction * examples),
            batch_size=plan.batch_size * 2**index,
            learning_rate=plan.learning_rate,
            epochs=plan.epochs_per_stage,
        )
        for index, fraction in enumerate((0.125, 0.25, 0.5, 1.0))
    )


def get_config() -> ExperimentConfig:
    """Doubling on the handwritten digits."""
    return ExperimentConfig(
        data=DataConfig(name="digits", image_size=16),
        model=ModelConfig(name="resnet_small", small_images=True),
        plan=PlanConfig(
            strategy=doubling,
            batch_size=16,
            learning_rate=0.02,
            epochs_per_stage=5,
            decay_every=5,
            baseline_epochs=20,
        ),
    )
