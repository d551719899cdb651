"""The strategies that `compare` knows by name, as changes to an experiment, and the seven that it takes by default."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from stepwise_jax.experiment.config import ExperimentConfig


@dataclass(frozen=True)
class Variant:
    """A strategy that `compare` knows by name."""

    title: str
    """A description for tables."""
    changes: Mapping[str, Any]
    """Fields that differ from the experiment, by dotted name."""


def _variant(title: str, name: str, **others: Any) -> Variant:
    # The staged run is the paper's, with rates by Eq. 9; controls are derived from it, so they need the rule too.
    fields = {"plan.learning_rate_rule": "eq9"} | {f"plan.{field}": value for field, value in others.items()}
    return Variant(title, MappingProxyType({"plan.strategy": name} | fields))


def _rule(title: str, rule: str) -> Variant:
    return _variant(title, "stepwise", learning_rate_rule=rule)


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "own": Variant("the configuration as it stands", MappingProxyType({})),
        "stepwise": _rule("the paper's plan, rates by Eq. 9", "eq9"),
        "constant_rate": _variant("the paper's plan, constant rate", "constant_rate"),
        "data_only": _variant("only the data grows: constant batch and rate", "data_only"),
        "batch_only": _variant("only the batch grows: all the data, constant rate", "batch_only"),
        "rate_only": _variant("only the rate is staged: all the data, constant batch", "equal_samples_rate_curve"),
        "baseline": _variant("the paper's baseline: all the data, constant batch", "baseline"),
        "equal_samples": _variant("all the data, as many samples as the staged run", "equal_samples"),
        "equal_samples_rate_curve": _variant(
            "all the data, as many samples, the staged run's rate curve", "equal_samples_rate_curve"
        ),
        "equal_updates": _variant("all the data, as many updates as the staged run", "equal_updates"),
        "last_stage": _variant("the last stage alone", "last_stage"),
        "batch_growth": _variant("all the data, the batch grows where the rate would drop", "batch_growth"),
        "cosine": _variant("all the data, as many samples, cosine decay", "cosine"),
        "fresh_momentum": _variant("the paper's plan, momentum reset at each stage", "stepwise", carry="weights"),
        "eq9_recursive": _rule("the paper's plan, Eq. 9 recursive", "eq9_recursive"),
        "eq9_literal": _rule("the paper's plan, Eq. 9 literal", "eq9_literal"),
        "eq9_base_batch": _rule("the paper's plan, Eq. 9 with the base batch", "eq9_base_batch"),
        "linear_scaling": _rule("the paper's plan, rate in proportion to the batch", "linear_scaling"),
    }
)

_DEFAULT = (
    "stepwise",
    "constant_rate",
    "data_only",
    "baseline",
    "equal_samples",
    "equal_samples_rate_curve",
    "equal_updates",
)


def default_names(experiment: ExperimentConfig) -> tuple[str, ...]:
    """The seven variants that are compared by default; the first is the reference.

    A user-defined strategy replaces the paper's.
    """
    return ("own", *_DEFAULT[1:]) if callable(experiment.plan.strategy) else _DEFAULT
