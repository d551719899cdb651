"""The fields of a plan: its data, batch sizes, learning rates, epochs and boundaries."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from stepwise_jax.experiment.fields import ConfigSection

LearningRateRule = Literal["eq9", "eq9_recursive", "eq9_literal", "eq9_base_batch", "constant", "linear_scaling"]

CarryName = Literal["state", "weights", "nothing", "shrink_perturb"]


@dataclass(frozen=True)
class PlanConfig(ConfigSection):
    """The stages: their data, batch sizes, learning rates and epochs (Sections III-B and III-C)."""

    _prefix = "plan."

    strategy: str | Callable[..., Any] = "stepwise"
    """Name of the strategy that makes the stages, with values of its parameters (pacing:root:start=0.1); a
    configuration file may also give a function of (plan, examples)."""
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
    warmup_epochs: int = 0
    """First epochs of each stage in which the learning rate rises linearly to its full value."""
    image_sizes: tuple[int, ...] | None = None
    """Height and width of the training images in each stage, in pixels; default: data.image_size in all."""
    microbatches: tuple[int, ...] | None = None
    """Parts into which each stage's batches are split to save memory; default: 1 in all."""
    draw: Literal["nested", "redrawn"] = "nested"
    """Train on nested subsets, or draw M_i other examples of the whole set in each epoch."""
    critical_batch: int | None = None
    """Critical batch size that a pilot run measured: critical_batch_warmup stops doubling below it."""
    pilot_samples: int = 0
    """Samples of the pilot run, which critical_batch_warmup and cabs do without."""
    carry: CarryName | Callable[..., Any] = "state"
    """Kept at a stage boundary: everything, all but momentum, nothing, or shrunken weights; or a function."""
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
        for name in ("image_sizes", "microbatches"):
            value = getattr(self, name)
            one_each = value is None or (len(value) == len(self.fractions) and min(value) >= 1)
            self._require(one_each, name, f"one positive whole number for each of the {len(self.fractions)} fractions")
        self._require(self.critical_batch is None or self.critical_batch >= 1, "critical_batch", "at least 1")
        self._require(self.pilot_samples >= 0, "pilot_samples", "at least 0")
        self._require(0 <= self.warmup_epochs < self.epochs_per_stage, "warmup_epochs", "below plan.epochs_per_stage")
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
            all_data = max(self.fractions) == 1
            self._require(all_data, "fractions", "shares of the training set that end with 1, as 0.2 0.6 1")


def _rising(numbers: tuple[float, ...]) -> bool:
    return all(before < after for before, after in itertools.pairwise(numbers))
