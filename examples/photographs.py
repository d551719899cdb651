"""Your photographs, in the paper's five stages: copy this file and change its values.

python launch.py plan examples/photographs.py --data.root FOLDER
python launch.py train examples/photographs.py --data.root FOLDER --workdir runs/photos
"""

from stepwise_jax import DataConfig, ExperimentConfig, ModelConfig, PlanConfig

EPOCHS = 6


def get_config() -> ExperimentConfig:
    """A small network on small images, for a CPU."""
    return ExperimentConfig(
        data=DataConfig(name="image_folder", image_size=32),
        model=ModelConfig(name="res2net_small", small_images=True, width=8),
        plan=PlanConfig(
            batch_size=8,
            learning_rate=0.02,
            epochs_per_stage=EPOCHS,
            decay_every=EPOCHS // 2,
            # The paper's proportions.
            baseline_epochs=5 * EPOCHS,
            baseline_decay_every=3 * EPOCHS // 2,
        ),
    )
