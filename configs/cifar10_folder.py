"""A small Res2Net on a folder of 32 x 32 images, in the paper's five stages, shortened for a laptop.

    python launch.py train configs/cifar10_folder.py --workdir runs/cifar10 --data.root FOLDER

FOLDER holds train/CLASS/*.jpg and test/CLASS/*.jpg, for example CIFAR-10 as 60,000 files. Any folder of small images
works.
"""

from stepwise_jax import DataConfig, ExperimentConfig, ModelConfig, PlanConfig


def get_config() -> ExperimentConfig:
    """A real data set, small enough for two CPU cores."""
    return ExperimentConfig(
        data=DataConfig(name="image_folder", image_size=32),
        model=ModelConfig(name="res2net_small", small_images=True, width=8),
        plan=PlanConfig(
            learning_rate=0.05, epochs_per_stage=2, decay_every=1, baseline_epochs=10, baseline_decay_every=3
        ),
    )
