"""The strategies that `compare` knows by name, as changes to an experiment, and the eight that it takes by default."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.plans.registry import STRATEGIES, find_strategy, is_registered, strategy_fields, strategy_title


@dataclass(frozen=True)
class Variant:
    """A strategy that `compare` knows by name."""

    title: str
    """A description for tables."""
    changes: Mapping[str, Any]
    """Fields that differ from the experiment, by dotted name."""


def _variant(title: str, fields: Mapping[str, Any]) -> Variant:
    # The staged run is the paper's, with rates by Eq. 9; controls are derived from it, so they need the rule too.
    changed = {"strategy": fields["strategy"], "learning_rate_rule": "eq9", **fields}
    return Variant(title, MappingProxyType({f"plan.{name}": value for name, value in changed.items()}))


def _rule(title: str, rule: str) -> Variant:
    return _variant(title, {"strategy": "stepwise", "learning_rate_rule": rule})


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "own": Variant("the configuration as it stands", MappingProxyType({})),
        **{name: _variant(strategy_title(name), strategy_fields(name)) for name in STRATEGIES},
        "rate_only": _variant(
            "only the rate is staged: all the data, constant batch", {"strategy": "equal_samples_rate_curve"}
        ),
        "fresh_momentum": _variant(
            "the paper's plan, momentum reset at each stage", {"strategy": "stepwise", "carry": "weights"}
        ),
        "eq9_recursive": _rule("the paper's plan, Eq. 9 recursive", "eq9_recursive"),
        "eq9_literal": _rule("the paper's plan, Eq. 9 literal", "eq9_literal"),
        "eq9_base_batch": _rule("the paper's plan, Eq. 9 with the base batch", "eq9_base_batch"),
        "linear_scaling": _rule("the paper's plan, rate in proportion to the batch", "linear_scaling"),
    }
)
"""Every strategy of the table, and others that differ from one in a field."""


def find_variant(name: str) -> Variant | None:
    """Return the variant of a name, which for a strategy may carry values of its parameters; None if there is none.

    Raises:
      InputError: for values that do not fit the parameters.
    """
    if name in VARIANTS or not is_registered(name):
        return VARIANTS.get(name)
    find_strategy(name)
    return _variant(strategy_title(name), strategy_fields(name))


_DEFAULT = (
    "stepwise",
    "constant_rate",
    "data_only",
    "baseline",
    "equal_samples",
    "equal_samples_rate_curve",
    "equal_updates",
    "cosine",
)


def default_names(experiment: ExperimentConfig) -> tuple[str, ...]:
    """The eight variants that are compared by default; the first is the reference.

    A user-defined strategy replaces the paper's.
    """
    return ("own", *_DEFAULT[1:]) if callable(experiment.plan.strategy) else _DEFAULT
