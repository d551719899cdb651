"""Progressive step-wise training, the whole method in one file: JAX, Flax, Optax and NumPy, and nothing else.

    python examples/stepwise_minimal.py

Prasad et al., "Rethinking of Deep Models Parameters with Respect to Data Distribution". Read from top to bottom: the
plan, the data, the network, the update, the evaluation, the run. It trains scikit-learn's 8x8 digits in the paper's
five stages, and for as many samples on the whole set at once. stepwise-jax itself computes the same parameters from the
same images, to within float rounding.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

# --- The plan (Section III-C, Table I) --------------------------------------------------------------------------------
# Everything is decided before training: a run is a list of stages.


class Stage(NamedTuple):
    """One stage: M_i examples in batches of b_i at the rate lambda_i."""

    name: str
    examples: int
    batch_size: int
    rate: float
    epochs: int
    decay_every: int

    @property
    def noise_scale(self) -> float:
        """Eq. 10: G_i = lambda_i M_i / b_i."""
        return self.rate * self.examples / self.batch_size


def stepwise_plan(examples: int, batch_size: int, rate: float, epochs: int, decay_every: int) -> list[Stage]:
    """The paper's plan: 20 to 100 % of the data in batches of b, 2b, 3b, 4b and b again, at the rates of Eq. 9.

    Eq. 9 divides by b what Eq. 7 multiplies by the *sum* of a batch's gradients. That quotient is the mean, which JAX
    takes anyway, so lambda_i is lambda in the first and the last stage and (lambda / 10) / n in those between.
    """
    sets = {"A": 0.2, "B": 0.4, "C": 0.6, "D": 0.8, "O": 1.0}
    n, multipliers = len(sets), (1, 2, 3, 4, 1)
    rates = [rate if i in (1, n) else rate / 10 / n for i in range(1, n + 1)]
    return [
        Stage(name, round(fraction * examples), batch_size * multiplier, rate_i, epochs, decay_every)
        for (name, fraction), multiplier, rate_i in zip(sets.items(), multipliers, rates, strict=True)
    ]


def whole_set_plan(examples: int, batch_size: int, rate: float, epochs: int, decay_every: int) -> list[Stage]:
    """Set O alone: with 100 epochs and a drop every 30, the paper's baseline."""
    return [Stage("O", examples, batch_size, rate, epochs, decay_every)]


def rate_in_epoch(stage: Stage, epoch: int) -> float:
    """Section IV-A: inside a stage the rate is multiplied by gamma = 0.1 every `decay_every` epochs, counted from 1."""
    return stage.rate * 0.1 ** ((epoch - 1) // stage.decay_every)


# --- The data (Section III-A) -----------------------------------------------------------------------------------------
# Each random order sorts the raw numbers of a counter-based generator, which are the same on every machine.


class Data(NamedTuple):
    """Images uint8 [N, 8, 8, 1] and labels int [N], for training and for testing."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_digits() -> Data:
    """1,797 handwritten digits; a fifth of them, drawn at random, is kept for testing."""
    from sklearn import datasets

    levels, labels = datasets.load_digits(return_X_y=True)
    images = np.rint(levels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.argsort(np.random.Philox(key=0).random_raw(len(labels)))
    test, train = order[:360], order[360:]
    return Data(images[train], labels[train], images[test], labels[test])


def nested_order(seed: int, examples: int) -> np.ndarray:
    """Eq. 6: one random order of the training set. M_i is its first M_i examples, so M_1 lies in M_2, and so on."""
    generator = np.random.Philox(key=np.array([seed, 0x5B5E75], np.uint64))
    return np.argsort(generator.random_raw(examples), kind="stable")


def epoch_batches(seed: int, number: int, epoch: int, subset: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """The rows of an epoch's batches, in a new order in every epoch of every stage, both counted from 1.

    A last batch that is not full is dropped.
    """
    generator = np.random.Philox(counter=[0, 0, epoch, number], key=[seed, 0])
    shuffled = subset[np.argsort(generator.random_raw(len(subset)), kind="stable")]
    for start in range(0, len(subset) - batch_size + 1, batch_size):
        yield shuffled[start : start + batch_size]


def preprocess(images: jax.Array, size: int) -> jax.Array:
    """Section IV-A: scale up to the network's size, normalise, and augment nothing: [b, h, w, 1] to [b, size, size, 3].

    Mean and deviation are ImageNet's.
    """
    floats = images.astype(jnp.float32) / 255
    if images.shape[1] != size:
        floats = jax.image.resize(floats, (len(images), size, size, images.shape[3]), "bilinear")
    return (floats - jnp.array([0.485, 0.456, 0.406])) / jnp.array([0.229, 0.224, 0.225])


# --- The network (Eq. 1, Fig. 2) --------------------------------------------------------------------------------------
# Any Flax module that takes images and `train` serves.


class SmallResNet(nn.Module):
    """A convolution, one residual block, the mean over all positions, and a classifier."""

    num_classes: int = 10
    width: int = 16

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images [b, H, W, 3] to logits [b, num_classes]."""
        conv = functools.partial(nn.Conv, self.width, (3, 3), use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = nn.relu(norm()(conv(strides=2)(images)))
        y = nn.relu(norm()(conv()(x)))
        x = nn.relu(x + norm()(conv()(y)))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


# --- The update (Eqs. 2 to 4 and 7) -----------------------------------------------------------------------------------


class State(NamedTuple):
    """What one update passes to the next, and one stage to the next: all of it crosses the boundary."""

    params: Any
    batch_stats: Any
    momentum: Any


def make_optimizer() -> optax.GradientTransformation:
    """Section IV-A: weight decay omega = 1e-4 is added to the gradient, then comes momentum phi = 0.9."""
    return optax.chain(optax.add_decayed_weights(1e-4), optax.trace(decay=0.9))


def initial_state(network: nn.Module, seed: int, size: int) -> State:
    """Random weights from the seed, and no momentum yet."""
    # On a CPU, XLA needs far longer to optimise the random generators than they need to run.
    quickly = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(functools.partial(network.init, train=False), compiler_options=quickly)
    variables = init(jax.random.key(seed), jnp.zeros((1, size, size, 3)))
    return State(variables["params"], variables["batch_stats"], make_optimizer().init(variables["params"]))


@functools.cache
def make_step(network: nn.Module, size: int) -> Callable[..., tuple[State, jax.Array]]:
    """The update, compiled once for each batch size; the rate is an argument, so that another rate compiles nothing."""

    def loss(params: Any, batch_stats: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        """Eq. 2 over a batch: the mean cross-entropy."""
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = network.apply(variables, preprocess(images, size), train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated["batch_stats"]

    @jax.jit
    def step(state: State, images: jax.Array, labels: jax.Array, rate: jax.Array) -> tuple[State, jax.Array]:
        """Eqs. 3 and 4: alpha <- alpha - lambda_i v, where v is the momentum of the batch's mean gradient."""
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, batch_stats), gradients = gradient(state.params, state.batch_stats, images, labels)
        direction, momentum = make_optimizer().update(gradients, state.momentum, state.params)
        params = jax.tree.map(lambda alpha, v: alpha - rate * v, state.params, direction)
        return State(params, batch_stats, momentum), value

    return step


# --- Evaluation (Section IV-A) ----------------------------------------------------------------------------------------


@functools.cache
def make_evaluate(network: nn.Module, size: int) -> Callable[..., dict[str, jax.Array]]:
    """The scores of a state: top-1, top-5 and loss over a whole test set, with the running batch statistics."""

    @jax.jit
    def evaluate(state: State, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits: Any = network.apply(variables, preprocess(images, size), train=False)
        rank = (logits > jnp.take_along_axis(logits, labels[:, None], axis=1)).sum(axis=1)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return {"top1": jnp.mean(rank < 1), "top5": jnp.mean(rank < 5), "loss": loss.mean()}

    return evaluate


# --- The run (Section III-C) ------------------------------------------------------------------------------------------


def train(data: Data, plan: list[Stage], network: nn.Module, seed: int, size: int) -> Iterator[tuple[State, dict]]:
    """Train stage by stage; after each epoch, yield the state and a row of what was done and scored."""
    state, order = initial_state(network, seed, size), nested_order(seed, len(data.train_labels))
    step, evaluate, samples = make_step(network, size), make_evaluate(network, size), 0
    for number, stage in enumerate(plan, start=1):
        # "The M_i trained network weights are used as the initializer for M_{i+1}" (Section IV-D): the state goes on.
        for epoch in range(1, stage.epochs + 1):
            rate, losses = np.float32(rate_in_epoch(stage, epoch)), []
            for rows in epoch_batches(seed, number, epoch, order[: stage.examples], stage.batch_size):
                state, loss = step(state, data.train_images[rows], data.train_labels[rows], rate)
                losses.append(loss)
            samples += len(losses) * stage.batch_size
            row = {"stage": stage.name, "epoch": epoch, "samples": samples, "train_loss": float(np.mean(losses))}
            yield state, row | jax.device_get(evaluate(state, data.test_images, data.test_labels))


def main(epochs: int = 6, size: int = 16, width: int = 16) -> None:
    """Train in steps, then on set O alone for as many samples, and print a row for each stage."""
    data, network = load_digits(), SmallResNet(width=width)
    m, b, rate = len(data.train_labels), 16, 0.05
    plans = {
        "step-wise": stepwise_plan(m, b, rate, epochs, decay_every=epochs // 2),
        "at once": whole_set_plan(m, b, rate, 3 * epochs, decay_every=epochs),
    }
    print("plan       set  examples  batch    rate  noise scale  samples so far  top-1    top-5")
    for title, plan in plans.items():
        rows = {row["stage"]: row for _, row in train(data, plan, network, seed=0, size=size)}
        for stage in plan:
            row = rows[stage.name]
            planned = f"{stage.examples:8}  {stage.batch_size:5}  {stage.rate:6.4f}  {stage.noise_scale:11.4f}"
            print(f"{title:9}  {stage.name:3}  {planned}  {row['samples']:14,}  {row['top1']:6.2%}  {row['top5']:7.2%}")
    print("One seed: this difference says little. examples/first_comparison.ipynb measures it over several seeds.")


if __name__ == "__main__":
    main()
