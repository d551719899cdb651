"""Handwritten digits in the paper's five stages: a demonstration that needs no download.

    python launch.py train configs/digits.py --workdir runs/demo

A small ResNet on scikit-learn's 1,797 scans of 8 x 8 pixels (1,437 for training, 360 for testing), scaled up to 16 x 16
on the device. The stages, batch multipliers and Eq. 9 are the paper's; epochs, b and lambda suit the small data set.
"""

from stepwise_jax import DataConfig, ExperimentConfig, ModelConfig, PlanConfig


def get_config() -> ExperimentConfig:
    """The demonstration."""
    return ExperimentConfig(
        data=DataConfig(name="digits", image_size=16),
        model=ModelConfig(name="resnet_small", small_images=True),
        plan=PlanConfig(
            batch_size=16,
            learning_rate=0.02,
            epochs_per_stage=10,
            decay_every=5,
            baseline_epochs=50,
            baseline_decay_every=15,
        ),
    )
