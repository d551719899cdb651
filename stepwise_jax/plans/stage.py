"""One stage of a run, fixed before training, and the numbers derived from it."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.fields import make_plain, type_matches, type_name

# The paper's letters for its five sets (Table I).
SET_NAMES = {0.2: "A", 0.4: "B", 0.6: "C", 0.8: "D", 1.0: "O"}


@dataclass(frozen=True)
class Stage:
    """One stage, fixed before training; `learning_rate` applies to the mean gradient, as in Optax."""

    name: str
    """The paper's letter for the set, or any other name."""
    fraction: float
    """M_i / M."""
    examples: int
    """M_i."""
    batch_size: int
    """b_i."""
    learning_rate: float
    """lambda_i, before the first milestone."""
    epochs: int
    """Passes over the M_i examples."""
    milestones: tuple[int, ...] = ()
    """Numbers of completed epochs after which the learning rate is multiplied by `decay_factor`."""
    decay_factor: float = 0.1
    """gamma."""
    momentum: float | None = None
    """None uses `optimizer.momentum`."""
    weight_decay: float | None = None
    """None uses `optimizer.weight_decay`."""
    epoch_rates: tuple[float, ...] | None = None
    """lambda_i of each epoch; replaces `milestones` for any other schedule."""
    warmup_epochs: int = 0
    """First epochs in which the rate rises linearly to its full value: e/(w + 1) of it in epoch e of w."""
    image_size: int | None = None
    """Height and width of the training images, in pixels; None uses `data.image_size`, which scores always use."""
    microbatches: int = 1
    """Parts of a batch whose gradients are computed one after the other, to save memory. Batch norm sees one part."""
    draw: Literal["nested", "redrawn"] = "nested"
    """Train on the nested subset, or draw M_i other examples of the whole set in each epoch."""
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    """Others of the optimizer, by the names of its arguments."""

    def __post_init__(self) -> None:
        make_plain(self)

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer steps in an epoch; an incomplete last batch is dropped."""
        return self.examples // self.batch_size

    @property
    def updates(self) -> int:
        """Optimizer steps in the stage."""
        return self.epochs * self.updates_per_epoch

    @property
    def samples(self) -> int:
        """The nominal cost, epochs x M_i."""
        return self.epochs * self.examples

    @property
    def noise_scale(self) -> float:
        """Eq. 10: G_i = lambda_i M_i / b_i, at the start of the stage."""
        return noise_scale(self, self.learning_rate)

    @property
    def noise_scale_exact(self) -> float:
        """Eq. 5: lambda_i (M_i / b_i - 1), at the start of the stage."""
        return self.learning_rate * (self.examples / self.batch_size - 1)


def noise_scale(stage: Stage, learning_rate: float) -> float:
    """Return G_i = lambda_i M_i / b_i (Eq. 10) at a given learning rate."""
    return learning_rate * stage.examples / stage.batch_size


def learning_rate_at(stage: Stage, epoch: int) -> float:
    """Return the learning rate during `epoch`, counted from 1 within the stage."""
    if stage.epoch_rates is not None:
        return stage.epoch_rates[epoch - 1]
    decays = sum(milestone < epoch for milestone in stage.milestones)
    rate = stage.learning_rate * stage.decay_factor**decays
    return rate * epoch / (stage.warmup_epochs + 1) if epoch <= stage.warmup_epochs else rate


def stage_to_dict(stage: Stage) -> dict[str, Any]:
    """Return a stage and its derived numbers as a JSON-compatible dictionary."""
    derived = ("updates_per_epoch", "updates", "samples", "noise_scale", "noise_scale_exact")
    return {**dataclasses.asdict(stage), **{name: getattr(stage, name) for name in derived}}


_PLAIN = Stage("", 1.0, 1, 1, 1.0, 1)

_REQUIRED = tuple(item.name for item in dataclasses.fields(Stage))[:10]
"""The fields of the first version, which every recorded stage has."""


def stage_from_dict(document: dict[str, Any]) -> Stage:
    """Return the stage that `stage_to_dict` wrote; resumed runs read their stages this way.

    Raises:
      InputError: if a field is missing or has the wrong type.
    """
    try:
        # Older runs do not have these fields.
        optional = {**dataclasses.asdict(_PLAIN), **document}
        required = {name: document[name] for name in _REQUIRED}
        values: dict[str, Any] = {item.name: (optional | required)[item.name] for item in dataclasses.fields(Stage)}
    except (KeyError, TypeError) as error:
        raise InputError(f"a recorded stage does not fit this version of stepwise-jax: {error}") from error
    for name in ("milestones", "epoch_rates"):
        values[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
    for name, hint in typing.get_type_hints(Stage).items():
        require(type_matches(values[name], hint), f"{name} of a recorded stage", values[name], type_name(hint))
    return Stage(**values)
