"""The fields of the optimizer and of the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from stepwise_jax.experiment.fields import ConfigSection

OptimizerName = Literal["sgd", "nesterov", "adamw", "lars", "lamb", "lion"]

LossName = Literal["cross_entropy", "binary_cross_entropy", "focal"]


@dataclass(frozen=True)
class OptimizerConfig(ConfigSection):
    """The optimizer and its hyperparameters; a stage may set others."""

    _prefix = "optimizer."

    name: OptimizerName | Callable[..., Any] = "sgd"
    """Optimizer; a configuration file may also give a function of (learning_rate, **hyperparameters)."""
    momentum: float = 0.9
    """phi: momentum of sgd, nesterov and lars."""
    weight_decay: float = 1e-4
    """omega: weight decay."""
    decay_on: Literal["all", "kernels"] = "all"
    """Parameters with weight decay: all, or all but biases and normalization layers."""
    b1: float | None = None
    """First decay rate of adamw, lamb and lion; default: the optimizer's."""
    b2: float | None = None
    """Second decay rate of adamw, lamb and lion; default: the optimizer's."""
    eps: float | None = None
    """Added to the denominator of adamw and lamb; default: the optimizer's."""
    trust_coefficient: float | None = None
    """Trust coefficient of lars; default: the optimizer's."""
    clip_norm: float | None = None
    """Scale the gradients down to this global norm if theirs is larger; default: never."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, scored beside them; default: no average."""

    def hyperparameters(self) -> dict[str, float]:
        """The hyperparameters that are set, by the names of the optimizer's arguments."""
        names = ("momentum", "weight_decay", "b1", "b2", "eps", "trust_coefficient")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def _validate(self) -> None:
        for name in ("momentum", "b1", "b2", "ema_decay"):
            value = getattr(self, name)
            self._require(value is None or 0 <= value < 1, name, "at least 0 and below 1")
        self._require(0 <= self.weight_decay < float("inf"), "weight_decay", "a number that is not negative")
        for name in ("eps", "trust_coefficient", "clip_norm"):
            value = getattr(self, name)
            self._require(value is None or 0 < value < float("inf"), name, "a positive number")


@dataclass(frozen=True)
class LossConfig(ConfigSection):
    """The loss of an example."""

    _prefix = "loss."

    name: LossName | Callable[..., Any] = "cross_entropy"
    """Loss; a configuration file may also give a function of (logits, targets)."""
    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all classes."""
    gamma: float = 2.0
    """Exponent of the focal loss."""

    def _validate(self) -> None:
        self._require(0 <= self.label_smoothing < 1, "label_smoothing", "at least 0 and below 1")
        self._require(0 <= self.gamma < float("inf"), "gamma", "a number that is not negative")
        named = not callable(self.name)
        self._require(named or self.label_smoothing == 0, "label_smoothing", "0 if loss.name is a function")
        used = self.name == "focal" or self.gamma == 2.0
        self._require(used, "gamma", "left out unless loss.name is focal")
