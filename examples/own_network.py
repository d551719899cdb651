"""Your own network, trained in the paper's stages on the handwritten digits.

python examples/own_network.py --workdir runs/own_network
"""

import argparse
import sys

import jax
from flax import linen as nn

import stepwise_jax as sj


class OwnNetwork(nn.Module):
    """Two convolutions with batch norm, the mean over all positions, and a classifier."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images float32 [b, H, W, 3], normalised, to logits [b, num_classes]."""
        x = images
        for channels in (16, 32):
            x = nn.Conv(channels, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def main() -> int:
    """Train, or resume the run in the workdir."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="folder of the run, new or stopped")
    parser.add_argument("--epochs", type=int, default=10, help="epochs in each stage (default: 10)")
    options = parser.parse_args()
    try:
        experiment = sj.ExperimentConfig(
            data=sj.DataConfig(name="digits", image_size=16),
            plan=sj.PlanConfig(batch_size=16, learning_rate=0.05, epochs_per_stage=options.epochs),
        )
        for record in sj.train(experiment, OwnNetwork(num_classes=10), workdir=options.workdir):
            if record.kind == "epoch":
                print(f"set {record.stage_name}, epoch {record.epoch}: top-1 {record.top1:.4f}")
    except sj.StepwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
