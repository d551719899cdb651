"""Your own network, trained in the paper's stages on the handwritten digits.

python examples/own_network.py --workdir runs/own_network
"""

import argparse
import sys
from pathlib import Path

import jax
from flax import linen as nn

from stepwise_jax import DataConfig, ExperimentConfig, ModelConfig, PlanConfig
from stepwise_jax.cli.display import make_display
from stepwise_jax.cli.tables import print_result
from stepwise_jax.data import datasets
from stepwise_jax.errors import StepwiseError
from stepwise_jax.plans import planning
from stepwise_jax.plans.stage import stage_to_dict
from stepwise_jax.training import loop


class OwnNetwork(nn.Module):
    """Two convolutions with batch norm, the mean over all positions, and a classifier."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images float32 [N, H, W, 3], normalised, to logits [N, num_classes]."""
        x = images
        for channels in (16, 32):
            x = nn.Conv(channels, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def main() -> int:
    """Trains, or resumes the run in the workdir."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run, new or stopped")
    parser.add_argument("--epochs", type=int, default=10, help="epochs in each stage (default: 10)")
    options = parser.parse_args()
    display = make_display()
    try:
        experiment = ExperimentConfig(
            data=DataConfig(name="digits", image_size=16),
            model=ModelConfig(name="own_network"),
            plan=PlanConfig(batch_size=16, learning_rate=0.05, epochs_per_stage=options.epochs),
        )
        sizes = datasets.sizes(experiment.data)
        planned = planning.make_plan(experiment.plan, sizes.train, experiment.optimizer)
        summary = loop.run(experiment, planned, OwnNetwork(sizes.num_classes), options.workdir, observers=[display])
    except StepwiseError as error:
        display.finish()
        print(f"error: {error}", file=sys.stderr)
        return error.status
    display.finish()
    print_result([stage_to_dict(stage) for stage in planned], summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
