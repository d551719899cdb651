"""The verdict on CIFAR-100: a small ResNet on all 50,000 and 10,000 images at 32 x 32, a tenth of the paper's epochs.

    python launch.py train configs/cifar100_verdict.py --workdir runs/cifar100_verdict --data.root FOLDER
    python launch.py compare configs/cifar100_verdict.py --seeds 10 --margin 1 --tune-trials 3 \
        --plan-design cifar100.toml --data.root FOLDER
    python launch.py compare --design cifar100.toml --workdir runs/verdict100 --data.root FOLDER

FOLDER holds CIFAR-100 as 60,000 files, train/CLASS/*.jpg and test/CLASS/*.jpg. Each seed draws its own subsets A to D.
The plan has the paper's proportions and a tenth of its epochs: 2 per stage, and 10 for the baseline. lambda is the
centre of the grid on which every strategy is tuned.
"""

from stepwise_jax import DataConfig, EvaluationConfig, ExperimentConfig, ModelConfig, PlanConfig


def get_config() -> ExperimentConfig:
    """The staged run."""
    return ExperimentConfig(
        data=DataConfig(name="image_folder", image_size=32, subset_draw="seeded"),
        model=ModelConfig(name="resnet_small", small_images=True, stem_stride=2, width=8),
        plan=PlanConfig(
            batch_size=48,
            learning_rate=0.2,
            epochs_per_stage=2,
            decay_every=1,
            baseline_epochs=10,
            baseline_decay_every=3,
        ),
        evaluation=EvaluationConfig(every_epochs=2),
    )
