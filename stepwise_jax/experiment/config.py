"""An experiment as frozen, validated data. The default of every field is defined here."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from stepwise_jax.experiment.fields import ConfigSection
from stepwise_jax.formatting import is_url

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
class DataConfig(ConfigSection):
    """The data set, its image size, and how nested subsets are drawn from it."""

    _prefix = "data."

    name: str = "digits"
    """Data set: digits, image_folder, cifar10, cifar100, food101, birdsnap, face_mask, or a prepared TFDS data set."""
    root: str | None = None
    """Root of an image_folder: `root/train/CLASS/*` and `root/test/CLASS/*`, or `root/CLASS/*` alone."""
    data_dir: str | None = None
    """Folder of the prepared data sets; default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    image_size: int = 224
    """Height and width of the network's input in pixels; smaller images are scaled up on the device."""
    test_fraction: float = 0.2
    """Share of each class held out for testing, for an image_folder without a test folder."""
    train_examples: int | None = None
    """M: number of training examples, the first in the (random) order on disk; default: all."""
    validation_fraction: float = 0.0
    """Share of the training set, last in the order on disk, that is held out and scored instead of the test set."""
    normalisation: Literal["imagenet", "dataset", "none"] = "imagenet"
    """Per-channel mean and standard deviation: ImageNet's, those of this data set's training images, or 0 and 1."""
    delivery: Literal["auto", "resident", "streamed"] = "auto"
    """resident keeps all images on the device, streamed decodes and sends them batch by batch, auto decides by size."""
    workers: int = 0
    """Threads that decode streamed images; 0: two per core."""
    subset_draw: Literal["tfds", "seeded", "stratified"] = "tfds"
    """How each subset is drawn: TFDS subsplits of the hash-shuffled data, a seeded permutation, or one per class."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """Images that cannot be decoded: named and refused, or named and left out (an image_folder)."""
    duplicates: Literal["warn", "drop", "refuse"] = "warn"
    """Images with identical pixels: counted, left out of training, or refused."""

    def _validate(self) -> None:
        for name in ("root", "data_dir"):
            self._require(not is_url(getattr(self, name) or ""), name, "a folder on this machine, not a URL")
        self._require(1 <= self.image_size <= 8192, "image_size", "from 1 to 8192 pixels")
        self._require(self.workers >= 0, "workers", "at least 1, or 0 for two threads per core")
        self._require(0 < self.test_fraction < 1, "test_fraction", "between 0 and 1")
        self._require(self.train_examples is None or self.train_examples >= 1, "train_examples", "at least 1")
        self._require(0 <= self.validation_fraction < 1, "validation_fraction", "at least 0 and below 1")


@dataclass(frozen=True)
class ModelConfig(ConfigSection):
    """The network."""

    _prefix = "model."

    name: str = "resnet50"
    """Name of the network, as in timm."""
    small_images: bool = False
    """Use a 3x3 stem of stride 1 without max-pooling, for images of about 32 pixels."""
    width: int | None = None
    """Channels of the first network stage; default: the network's (64 in the paper)."""
    blocks: tuple[int, ...] | None = None
    """Blocks in each of one to four network stages; default: the network's ((3, 4, 6, 3) with 50 layers)."""
    initial_weights: str | None = None
    """PyTorch weights to start from (.pth, .pt, .safetensors); default: random weights from the seed."""
    keep_head: bool = False
    """Also load the classifier from initial_weights, instead of drawing a new one from the seed."""

    def _validate(self) -> None:
        local = not is_url(self.initial_weights or "")
        self._require(local, "initial_weights", "a file on this machine, not a URL")
        self._require(self.width is None or self.width >= 1, "width", "at least 1")
        requirement = "one to four positive numbers, one for each network stage, of at most 1000"
        blocks = (1,) if self.blocks is None else self.blocks
        self._require(1 <= len(blocks) <= 4 and min(blocks) >= 1 and max(blocks) <= 1000, "blocks", requirement)


@dataclass(frozen=True)
class PlanConfig(ConfigSection):
    """The stages: their data, batch sizes, learning rates and epochs (Sections III-B and III-C)."""

    _prefix = "plan."

    strategy: StrategyName | Callable[..., Any] = "stepwise"
    """Strategy that makes the stages; a configuration file may also give a function of (plan, examples)."""
    staged: Literal["stepwise"] | Callable[..., Any] = "stepwise"
    """Strategy whose samples, updates and learning rates the controls (equal_samples, ...) match."""
    fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """M_i / M: share of the training set in each stage; the defaults are sets A, B, C, D and O."""
    batch_size: int = 24
    """b: base batch size."""
    batch_multipliers: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 1.0)
    """b_i / b: batch size of each stage, relative to the base batch size."""
    learning_rate: float = 0.001
    """lambda: initial learning rate, for the mean gradient."""
    learning_rate_rule: LearningRateRule = "eq9"
    """Rule that derives lambda_i from lambda: a reading of Eq. 9, constant, or linear_scaling."""
    epochs_per_stage: int = 20
    """Epochs per stage."""
    decay_every: int = 10
    """Multiply the learning rate by decay_factor every this many epochs of a stage."""
    decay_factor: float = 0.1
    """gamma: factor of each learning rate decay."""
    milestones: tuple[int, ...] | None = None
    """Completed epochs of a stage after which its learning rate decays; replaces decay_every."""
    baseline_epochs: int = 100
    """Epochs of the baseline, which trains on set O alone."""
    baseline_decay_every: int = 30
    """Decay the baseline's learning rate every this many epochs."""
    carry: Literal["state", "weights", "nothing"] = "state"
    """Kept at a stage boundary: weights, batch statistics and momentum; the same without momentum; or nothing."""
    batch_statistics: Literal["carried", "reset", "reestimated"] = "carried"
    """Batch statistics at a stage boundary: kept, set to 0 and 1, or measured on the new stage's subset."""

    def _validate(self) -> None:
        self._validate_fractions()
        positive = all(0 < multiplier < float("inf") for multiplier in self.batch_multipliers)
        one_each = len(self.batch_multipliers) == len(self.fractions)
        requirement = f"one positive number for each of the {len(self.fractions)} fractions"
        self._require(positive and one_each, "batch_multipliers", requirement)
        for name in ("batch_size", "epochs_per_stage", "decay_every", "baseline_epochs", "baseline_decay_every"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
            limit = 1_000_000 if "epochs" in name else 1_000_000_000
            self._require(getattr(self, name) <= limit, name, f"at most {limit}")
        self._require(0 < self.learning_rate < float("inf"), "learning_rate", "a positive number")
        self._require(0 < self.decay_factor <= 1, "decay_factor", "above 0 and at most 1")
        rising = self.milestones is None or _rising((0, *self.milestones))
        self._require(rising, "milestones", "positive numbers of epochs, each above the one before")
        within = not self.milestones or self.milestones[-1] < self.epochs_per_stage
        self._require(within, "milestones", f"below plan.epochs_per_stage, {self.epochs_per_stage}")
        kept = self.carry != "nothing" or self.batch_statistics == "carried"
        self._require(kept, "batch_statistics", "'carried' if plan.carry is 'nothing', which resets everything")

    def _validate_fractions(self) -> None:
        rising = len(self.fractions) > 0 and _rising((0.0, *self.fractions))
        self._require(rising, "fractions", "positive numbers, each above the one before")
        if self.strategy == "single_set":
            self._require(max(self.fractions) <= 1, "fractions", "at most 1")
        else:
            self._require(max(self.fractions) == 1, "fractions", "numbers that end with 1, the whole training set")


@dataclass(frozen=True)
class OptimizerConfig(ConfigSection):
    """SGD as in PyTorch: weight decay is added to the gradient before momentum."""

    _prefix = "optimizer."

    momentum: float = 0.9
    """phi: momentum."""
    weight_decay: float = 1e-4
    """omega: weight decay."""
    decay_on: Literal["all", "kernels"] = "all"
    """Parameters with weight decay: all, or all but biases and normalization layers."""

    def _validate(self) -> None:
        self._require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1")
        self._require(0 <= self.weight_decay < float("inf"), "weight_decay", "a number that is not negative")


@dataclass(frozen=True)
class EvaluationConfig(ConfigSection):
    """Evaluation on the test set."""

    _prefix = "evaluation."

    batch_size: int = 0
    """Images per evaluation batch; 0: chosen by device. The scores do not depend on it."""
    every_epochs: int = 1
    """Score the test set every this many epochs of a stage, and at its end."""

    def _validate(self) -> None:
        self._require(self.batch_size >= 0, "batch_size", "at least 1, or 0 to choose by device")
        self._require(self.every_epochs >= 1, "every_epochs", "at least 1")


@dataclass(frozen=True)
class CheckpointConfig(ConfigSection):
    """When to write checkpoints; the end of a stage always writes one."""

    _prefix = "checkpoint."

    every_seconds: float = 300.0
    """Maximum seconds of training between two checkpoints."""
    keep: int = 3
    """Number of checkpoints to keep; an older one is used if the newest is damaged."""

    def _validate(self) -> None:
        self._require(self.every_seconds > 0, "every_seconds", "a positive number of seconds")
        self._require(self.keep >= 2, "keep", "at least 2, so that an older one remains if the newest is damaged")


@dataclass(frozen=True)
class ExperimentConfig(ConfigSection):
    """One run: everything that determines its result."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    reproduces: str = ""
    """Row of the paper's tables that a report prints beside the measured scores, such as 'I/baseline'."""
    seed: int = 0
    """Seed of the initial weights, the order of examples, and subsets not drawn by TFDS."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the network's computation; parameters are always float32."""
    steps_per_call: int = 0
    """Optimizer steps per compiled call (lax.scan); 0: 1 on a CPU and 32 elsewhere."""
    deterministic: bool = False
    """Make runs on a GPU bit-identical, at some cost in speed; runs on a CPU or TPU always are."""
    on_nan: Literal["stop", "back"] = "stop"
    """If the loss is not finite: stop, or restart the stage with a tenth of its learning rate, up to 3 times."""

    def _validate(self) -> None:
        self._require(0 <= self.seed < 2**32, "seed", "between 0 and 4294967295")
        self._require(self.steps_per_call >= 0, "steps_per_call", "at least 1, or 0 to choose by device")


def _rising(numbers: tuple[float, ...]) -> bool:
    return all(before < after for before, after in itertools.pairwise(numbers))
