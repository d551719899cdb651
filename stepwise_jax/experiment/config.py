"""An experiment as frozen, validated data. Every field has one default, which stands here."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from stepwise_jax.experiment.fields import Section

LearningRateRule = Literal["eq9", "eq9_recursive", "eq9_literal", "eq9_base_batch", "constant", "linear_scaling"]

StrategyName = Literal[
    "stepwise",
    "baseline",
    "single_set",
    "equal_samples",
    "equal_samples_rate_curve",
    "equal_updates",
    "last_stage",
    "constant_rate",
    "data_only",
    "batch_only",
    "batch_growth",
    "cosine",
]


@dataclass(frozen=True)
class DataConfig(Section):
    """Which images, at which size, and how the nested subsets are drawn from them."""

    _prefix = "data."

    name: str = "digits"
    """Data set: digits, image_folder, cifar10, cifar100, food101, birdsnap, face_mask, or a prepared TFDS data set."""
    root: str | None = None
    """Folder of an image_folder: `root/train/CLASS/*` and `root/test/CLASS/*`, or `root/CLASS/*` alone."""
    data_dir: str | None = None
    """Where prepared data sets are kept; by default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    image_size: int = 224
    """Height and width, in pixels, that the network sees; smaller images are scaled up on the device."""
    test_fraction: float = 0.2
    """Share drawn for testing, by class, from an image_folder that has no test folder of its own."""
    train_examples: int | None = None
    """M: train on so many examples, the first of the order on disk (which is random); by default on all."""
    validation_fraction: float = 0.0
    """Share of the training set, its end on disk, that is held out and scored in place of the test set."""
    normalisation: Literal["imagenet", "dataset", "none"] = "imagenet"
    """Per-channel mean and standard deviation: of ImageNet, of this data set's training images, or 0 and 1."""
    delivery: Literal["auto", "resident", "streamed"] = "auto"
    """How images reach the device: all kept there, or read, decoded and sent batch by batch; auto: by size."""
    workers: int = 0
    """Threads that decode streamed images; 0 takes two for each core."""
    subset_draw: Literal["tfds", "seeded", "stratified"] = "tfds"
    """How M_i is drawn: TFDS subsplits of the hash-shuffled data, a permutation by seed, or by class and seed."""

    def _validate(self) -> None:
        self._require(1 <= self.image_size <= 8192, "image_size", "from 1 to 8192 pixels")
        self._require(self.workers >= 0, "workers", "at least 1, or 0 for two threads a core")
        self._require(0 < self.test_fraction < 1, "test_fraction", "between 0 and 1")
        self._require(self.train_examples is None or self.train_examples >= 1, "train_examples", "at least 1")
        self._require(0 <= self.validation_fraction < 1, "validation_fraction", "at least 0 and below 1")


@dataclass(frozen=True)
class ModelConfig(Section):
    """Which network."""

    _prefix = "model."

    name: str = "resnet50"
    """Network, by timm's name."""
    small_images: bool = False
    """A 3x3 stem of stride 1 without max-pooling, for images of about 32 pixels."""
    width: int | None = None
    """Channels of the first network stage; by default the network's own (64 in the paper's)."""
    blocks: tuple[int, ...] | None = None
    """Blocks per network stage, for one to four of them; by default the network's own, (3, 4, 6, 3) for the 50-layer
    members."""
    initial_weights: str | None = None
    """File of PyTorch's weights to start from (.pth, .pt, .safetensors); by default random weights from the seed."""
    keep_head: bool = False
    """Start from the file's classifier too; by default a new one is drawn from the seed."""

    def _validate(self) -> None:
        self._require(self.width is None or self.width >= 1, "width", "at least 1")
        wanted = "one to four positive numbers, one for each network stage, of at most 1000"
        sizes = (1,) if self.blocks is None else self.blocks
        self._require(1 <= len(sizes) <= 4 and min(sizes) >= 1 and max(sizes) <= 1000, "blocks", wanted)


@dataclass(frozen=True)
class PlanConfig(Section):
    """The stages: how much data, which batch size, which learning rate, and when (Sections III-B and III-C)."""

    _prefix = "plan."

    strategy: StrategyName | Callable[..., Any] = "stepwise"
    """The rule that makes the stages; in a configuration file also a function of (plan, examples)."""
    staged: Literal["stepwise"] | Callable[..., Any] = "stepwise"
    """The strategy whose samples, updates and rates the controls (equal_samples, ...) take as their measure."""
    fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """Share of the training set in each stage, M_i / M: sets A, B, C, D and O."""
    batch_size: int = 24
    """The paper's b: the base batch size."""
    batch_multipliers: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 1.0)
    """b_i / b, the batch size of each stage over the base batch size."""
    learning_rate: float = 0.001
    """The paper's lambda: the initial learning rate, for the mean gradient."""
    learning_rate_rule: LearningRateRule = "eq9"
    """How lambda_i follows from lambda (Eq. 9 and its readings)."""
    epochs_per_stage: int = 20
    """Epochs in each stage."""
    decay_every: int = 10
    """The rate is multiplied by decay_factor each time so many epochs of a stage are done."""
    decay_factor: float = 0.1
    """The paper's gamma."""
    milestones: tuple[int, ...] | None = None
    """Completed epochs of a stage at which its rate decays, instead of decay_every."""
    baseline_epochs: int = 100
    """Epochs of the baseline: set O alone."""
    baseline_decay_every: int = 30
    """The baseline's rate decays each time so many epochs are done."""
    carry: Literal["state", "weights", "nothing"] = "state"
    """What crosses a stage boundary: all (weights, statistics, momentum), all but momentum, or nothing."""
    batch_statistics: Literal["carried", "reset", "reestimated"] = "carried"
    """Batch statistics at a stage boundary: kept, set to 0 and 1, or measured on the stage's subset."""

    def _validate(self) -> None:
        self._validate_fractions()
        wanted = f"one positive number for each of the {len(self.fractions)} fractions"
        in_range = all(0 < multiplier < float("inf") for multiplier in self.batch_multipliers)
        multipliers_fit = len(self.batch_multipliers) == len(self.fractions) and in_range
        self._require(multipliers_fit, "batch_multipliers", wanted)
        for name in ("batch_size", "epochs_per_stage", "decay_every", "baseline_epochs", "baseline_decay_every"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
            most = 1_000_000 if "epochs" in name else 1_000_000_000
            self._require(getattr(self, name) <= most, name, f"at most {most}")
        self._require(0 < self.learning_rate < float("inf"), "learning_rate", "a positive number")
        self._require(0 < self.decay_factor <= 1, "decay_factor", "above 0 and at most 1")
        rising = self.milestones is None or _rising((0, *self.milestones))
        self._require(rising, "milestones", "positive numbers of epochs, each above the one before")
        within = not self.milestones or self.milestones[-1] < self.epochs_per_stage
        self._require(within, "milestones", f"below plan.epochs_per_stage, {self.epochs_per_stage}")
        kept = self.carry != "nothing" or self.batch_statistics == "carried"
        self._require(kept, "batch_statistics", "'carried' where plan.carry is 'nothing': all starts anew there")

    def _validate_fractions(self) -> None:
        grow = len(self.fractions) > 0 and _rising((0.0, *self.fractions))
        self._require(grow, "fractions", "positive numbers, each above the one before")
        if self.strategy == "single_set":
            self._require(max(self.fractions) <= 1, "fractions", "at most 1")
        else:
            self._require(max(self.fractions) == 1, "fractions", "growing to 1, the whole training set, at the end")


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """SGD as PyTorch's: weight decay is added to the gradient before momentum."""

    _prefix = "optimizer."

    momentum: float = 0.9
    """The paper's phi."""
    weight_decay: float = 1e-4
    """The paper's omega."""
    decay_on: Literal["all", "kernels"] = "all"
    """Which parameters decay: every one, or all but biases and norms."""

    def _validate(self) -> None:
        self._require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1")
        self._require(0 <= self.weight_decay < float("inf"), "weight_decay", "a number that is not negative")


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """How the test set is scored."""

    _prefix = "evaluation."

    batch_size: int = 0
    """Images in one evaluation call, or 0 to choose by device; the scores do not depend on it."""
    every_epochs: int = 1
    """Score the test set each time so many epochs of a stage are done, and at its end."""

    def _validate(self) -> None:
        self._require(self.batch_size >= 0, "batch_size", "at least 1, or 0 to choose by device")
        self._require(self.every_epochs >= 1, "every_epochs", "at least 1")


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """When the state is written; always at the end of a stage."""

    _prefix = "checkpoint."

    every_seconds: float = 300.0
    """The most seconds of training between two checkpoints."""
    keep: int = 3
    """Checkpoints kept; the older ones serve where the newest is damaged."""

    def _validate(self) -> None:
        self._require(self.every_seconds > 0, "every_seconds", "a positive number of seconds")
        self._require(self.keep >= 2, "keep", "at least 2, so that a damaged one has one before it")


@dataclass(frozen=True)
class ExperimentConfig(Section):
    """One run, whole: everything that decides what is computed."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    reproduces: str = ""
    """The row of the paper's tables that a report prints beside the measured scores, as 'I/baseline'."""
    seed: int = 0
    """Decides initial weights, the order of examples, and subsets that are not drawn by TFDS."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; parameters are float32 always."""
    steps_per_call: int = 0
    """Optimiser steps in one compiled call (lax.scan); 0 takes 1 on a CPU and 32 elsewhere."""
    deterministic: bool = False
    """Ask a GPU for runs that are the same to the bit, which costs speed; a CPU and a TPU always give them."""

    on_nan: Literal["stop", "back"] = "stop"
    """Where the loss is not finite: stop, or go back to the start of the stage with a tenth of its rate, 3 times."""

    def _validate(self) -> None:
        self._require(0 <= self.seed < 2**32, "seed", "between 0 and 4294967295")
        self._require(self.steps_per_call >= 0, "steps_per_call", "at least 1, or 0 to choose by device")


def _rising(numbers: tuple[float, ...]) -> bool:
    return all(before < after for before, after in itertools.pairwise(numbers))
