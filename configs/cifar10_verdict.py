r"""The verdict: does staging help a small ResNet on 5,000 photographs of CIFAR-10 at 32 x 32? Two cores, two hours.

    python launch.py train configs/cifar10_verdict.py --workdir runs/cifar10_verdict --data.root FOLDER
    python launch.py compare configs/cifar10_verdict.py --seeds 5 --workdir runs/verdict --data.root FOLDER

FOLDER holds CIFAR-10 as 60,000 files, train/CLASS/*.jpg and test/CLASS/*.jpg. The run uses the first 5,000 of the
50,000 training images in the order on disk, and scores all 10,000 test images. Each seed draws its own subsets A to D.
The plan has the paper's proportions and half its epochs: 10 per stage, and 50 for the baseline. b and lambda are the
values with which the *baseline* scored best on a held-out tenth of the training images:

    python launch.py sweep configs/cifar10_verdict.py --workdir runs/verdict_tuning --data.root FOLDER \
        --grid plan.batch_size=24,48 --grid plan.learning_rate=0.01,0.03,0.1,0.3 --plan.strategy baseline
"""

from stepwise_jax import DataConfig, EvaluationConfig, ExperimentConfig, ModelConfig, PlanConfig


def get_config() -> ExperimentConfig:
    """The staged run."""
    return ExperimentConfig(
        data=DataConfig(name="image_folder", image_size=32, train_examples=5000, subset_draw="seeded"),
        model=ModelConfig(name="resnet_small", small_images=True, width=8),
        plan=PlanConfig(
            batch_size=48,
            learning_rate=0.3,
            epochs_per_stage=10,
            decay_every=5,
            baseline_epochs=50,
            baseline_decay_every=15,
        ),
        evaluation=EvaluationConfig(every_epochs=5),
    )
