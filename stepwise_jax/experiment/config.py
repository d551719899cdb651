"""An experiment as frozen, validated data. The default of every field is defined here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stepwise_jax.experiment.fields import ConfigSection
from stepwise_jax.experiment.optimizer_config import LossConfig, OptimizerConfig
from stepwise_jax.experiment.plan_config import PlanConfig
from stepwise_jax.formatting import is_url

MAX_SEED = 2**32 - 1


def _check_seed(section: Any, name: str) -> None:
    section._require(0 <= getattr(section, name) <= MAX_SEED, name, f"between 0 and {MAX_SEED}")


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
    sample_seed: int | None = None
    """Seed that draws the train_examples from the whole training set; default: the first in the order on disk."""
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
    augmentation: tuple[str, ...] | Callable[..., Any] = ()
    """Random changes of training images, in order: flip, crop:4, crop:4:reflect, cutout:8, color_jitter, mixup:0.2,
    cutmix:1; a configuration file may also give a function of (key, images, labels)."""

    def _validate(self) -> None:
        for name in ("root", "data_dir"):
            self._require(not is_url(getattr(self, name) or ""), name, "a folder on this machine, not a URL")
        self._require(1 <= self.image_size <= 8192, "image_size", "from 1 to 8192 pixels")
        self._require(self.workers >= 0, "workers", "at least 1, or 0 for two threads per core")
        self._require(0 < self.test_fraction < 1, "test_fraction", "between 0 and 1")
        self._require(self.train_examples is None or self.train_examples >= 1, "train_examples", "at least 1")
        self._require(0 <= self.validation_fraction < 1, "validation_fraction", "at least 0 and below 1")
        if self.sample_seed is not None:
            _check_seed(self, "sample_seed")
            drawn = self.train_examples is not None and self.subset_draw != "tfds"
            requirement = "None without data.train_examples, and where data.subset_draw is 'tfds'"
            self._require(drawn, "sample_seed", requirement)


@dataclass(frozen=True)
class ModelConfig(ConfigSection):
    """The network."""

    _prefix = "model."

    name: str | Callable[..., Any] = "resnet50"
    """Name of the network, as in timm; a configuration file may also give a function of (num_classes)."""
    small_images: bool = False
    """Use a 3x3 stem without max-pooling, for images of about 32 pixels."""
    width: int | None = None
    """Channels of the first network stage; default: the network's (64 in the paper)."""
    blocks: tuple[int, ...] | None = None
    """Blocks in each of one to four network stages; default: the network's ((3, 4, 6, 3) with 50 layers)."""
    stem_stride: int = 1
    """Stride of the stem of small_images: 1, or 2 for maps of half the side, which take about a fifth of the time."""
    initial_weights: str | None = None
    """PyTorch weights to start from (.pth, .pt, .safetensors); default: random weights from the seed."""
    keep_head: bool = False
    """Also load the classifier from initial_weights, instead of drawing a new one from the seed."""

    def _validate(self) -> None:
        local = not is_url(self.initial_weights or "")
        self._require(local, "initial_weights", "a file on this machine, not a URL")
        named = not callable(self.name) or self.initial_weights is None
        self._require(named, "initial_weights", "None if model.name is a function")
        strides = (1, 2) if self.small_images else (1,)
        requirement = "1 or 2" if self.small_images else "1 unless model.small_images is True"
        self._require(self.stem_stride in strides, "stem_stride", requirement)
        self._require(self.width is None or self.width >= 1, "width", "at least 1")
        requirement = "one to four positive numbers, one for each network stage, of at most 1000"
        blocks = (1,) if self.blocks is None else self.blocks
        self._require(1 <= len(blocks) <= 4 and min(blocks) >= 1 and max(blocks) <= 1000, "blocks", requirement)


@dataclass(frozen=True)
class EvaluationConfig(ConfigSection):
    """Evaluation on the test set."""

    _prefix = "evaluation."

    batch_size: int = 0
    """Images per evaluation batch; 0: chosen by device. The scores do not depend on it."""
    metrics: tuple[str, ...] | Mapping[str, Callable[..., Any]] = ()
    """Scores beside top-1, top-5 and loss: calibration_error; a configuration file may also give a dictionary of
    functions of (logits, labels)."""
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
class StreamsConfig(ConfigSection):
    """Seeds of single streams of random numbers, so that each source of variance can be held or varied alone."""

    _prefix = "streams."

    init: int | None = None
    """Seed of the initial weights; default: seed."""
    order: int | None = None
    """Seed of the order of the examples, and of augmentation and dropout; default: seed."""
    subset: int | None = None
    """Seed of the subsets, unless TFDS draws them (data.subset_draw); default: seed."""

    def _validate(self) -> None:
        for name in ("init", "order", "subset"):
            if getattr(self, name) is not None:
                _check_seed(self, name)


@dataclass(frozen=True)
class ExperimentConfig(ConfigSection):
    """One run: everything that determines its result."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    streams: StreamsConfig = field(default_factory=StreamsConfig)
    reproduces: str = ""
    """Row of the paper's tables that a report prints beside the measured scores, such as 'I/baseline'."""
    seed: int = 0
    """Seed of the initial weights, the order of examples, and subsets not drawn by TFDS; see streams."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the network's computation; parameters are always float32."""
    steps_per_call: int = 0
    """Optimizer steps per compiled call (lax.scan); 0: 1 on a CPU and 32 elsewhere."""
    deterministic: bool = False
    """Make runs on a GPU bit-identical, at some cost in speed; runs on a CPU or TPU always are."""
    measure: Literal["none", "noise"] = "none"
    """Measure the gradient noise at each stage's end and on both sides of each boundary; training stays the same."""
    measure_share: float = 0.03
    """Examples that measuring sees, as a share of the run's samples; 16 microbatches each time at least."""
    on_nan: Literal["stop", "back"] = "stop"
    """If the loss is not finite: stop, or restart the stage with a tenth of its learning rate, up to 3 times."""

    def _validate(self) -> None:
        _check_seed(self, "seed")
        self._require(self.steps_per_call >= 0, "steps_per_call", "at least 1, or 0 to choose by device")
        self._require(0 < self.measure_share <= 1, "measure_share", "above 0 and at most 1")

    def stream_seed(self, stream: Literal["init", "order", "subset"]) -> int:
        """The seed of a stream: its own, or the run's."""
        own = getattr(self.streams, stream)
        return self.seed if own is None else own
