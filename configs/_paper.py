"""What the paper's experiments share (Section IV-A): input, optimiser and plan are the defaults of the fields."""

from stepwise_jax.config import DataConfig, ExperimentConfig, ModelConfig, PlanConfig

IMAGE_SIZE = 224
"""Pixels; CIFAR's 32 x 32 images are scaled up to it."""


def experiment(data: str, network: str, plan: PlanConfig | None = None) -> ExperimentConfig:
    """A network on a data set under the paper's plan: A, B, C, D, O for 20 epochs each, b = 24, lambda = 0.001."""
    return ExperimentConfig(
        data=DataConfig(name=data, image_size=IMAGE_SIZE), model=ModelConfig(name=network), plan=plan or PlanConfig()
    )
