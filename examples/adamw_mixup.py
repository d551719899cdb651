"""AdamW, label smoothing and mixup, with a metric and an observer of your own, on the handwritten digits.

python examples/adamw_mixup.py runs/adamw_mixup
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp

import stepwise_jax as sj


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How far the correct class is above the next: logits float32 [b, C] and labels int [b] to [b]."""
    correct = labels[:, None] == jnp.arange(logits.shape[1])
    return jnp.where(correct, logits, -jnp.inf).max(axis=1) - jnp.where(correct, -jnp.inf, logits).max(axis=1)


def print_scores(record: sj.Record) -> None:
    """Print the scores of each epoch."""
    if record.kind == "epoch":
        print(record.stage_name, record.epoch, *(f"{name} {value:.4f}" for name, value in record.metrics.items()))


experiment = sj.ExperimentConfig(
    data=sj.DataConfig(name="digits", image_size=16),
    model=sj.ModelConfig(name="resnet_small", small_images=True, width=8, blocks=(1, 1)),
    plan=sj.PlanConfig(batch_size=16, learning_rate=0.002, learning_rate_rule="constant", epochs_per_stage=4),
)
recipe = sj.Recipe(
    optimizer=partial(sj.optimizers.adamw, weight_decay=0.05),
    loss=sj.losses.cross_entropy(label_smoothing=0.1),
    augment=sj.augmentation.mixup(alpha=0.2, num_classes=10),
    metrics={"margin": margin},
)
if __name__ == "__main__":
    for _ in sj.train(experiment, workdir=sys.argv[1], recipe=recipe, observers=[print_scores]):
        pass
