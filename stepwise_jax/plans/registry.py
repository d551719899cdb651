"""The strategies by name, with their titles.

The choices of the configuration, the help of the command line, `compare` and the documentation are derived from this
table. A new strategy is one pure function and one entry here.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, get_args

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.formatting import suggest
from stepwise_jax.plans import batches, controls, pacing, resolution, strategies, subsets
from stepwise_jax.plans.parameters import parse_parameters
from stepwise_jax.plans.stage import Stage
from stepwise_jax.plans.strategies import Strategy


@dataclass(frozen=True)
class Entry:
    """A strategy in the table; its name is that of its function."""

    function: Callable[..., tuple[Stage, ...]]
    """`plan, examples -> stages`, with parameters of its own as keyword arguments."""
    title: str
    """A description for tables."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of the plan that the strategy needs, by name."""
    examples: tuple[str, ...] = ()
    """Values of its parameters to show it with, as they follow its name; by default none."""


_ENTRIES = (
    Entry(strategies.stepwise, "the paper's plan, rates by Eq. 9"),
    Entry(strategies.baseline, "the paper's baseline: all the data, constant batch"),
    Entry(strategies.single_set, "the largest set alone, for the epochs of one stage"),
    Entry(controls.equal_samples, "all the data, as many samples as the staged run"),
    Entry(controls.equal_samples_rate_curve, "all the data, as many samples, the staged run's rate curve"),
    Entry(controls.equal_updates, "all the data, as many updates as the staged run"),
    Entry(controls.last_stage, "the last stage alone"),
    Entry(controls.constant_rate, "the paper's plan, constant rate"),
    Entry(controls.data_only, "only the data grows: constant batch and rate"),
    Entry(controls.batch_only, "only the batch grows: all the data, constant rate"),
    Entry(controls.cosine, "all the data, as many samples, cosine decay"),
    Entry(batches.batch_growth, "all the data, the batch grows where the rate would drop"),
    Entry(batches.adabatch, "all the data, twice the batch and 0.75 of the rate at each drop"),
    Entry(batches.seesaw, "all the data, half of each drop is a larger batch", examples=("", "cosine")),
    Entry(batches.critical_batch_warmup, "all the data, the batch doubles up to the critical one"),
    Entry(batches.cabs, "all the data, the batch grows with the measured noise", examples=("30000+60000+120000",)),
    Entry(batches.linear_ramp, "all the data, the batch grows linearly"),
    Entry(pacing.pacing, "random subsets grow by a pacing function, constant batch", examples=get_args(pacing.Form)),
    Entry(subsets.falling, "random subsets shrink, all the data at the end, constant batch"),
    Entry(subsets.redrawn, "the paper's plan, other examples in each epoch"),
    Entry(
        subsets.shrink_perturb,
        "the paper's plan, weights shrunk and perturbed at each stage",
        fields={"carry": "shrink_perturb"},
    ),
    Entry(resolution.progressive_size, "all the data, images grow, constant batch", examples=("128:224",)),
)

STRATEGIES: Mapping[str, Entry] = MappingProxyType({each.function.__name__: each for each in _ENTRIES})
"""The strategies by name."""


def find_strategy(text: str) -> Strategy:
    """Return the strategy of a name, with the values that follow it: `pacing:root:start=0.1`.

    Raises:
      InputError: for a name that is not in the table (with the nearest), or values that do not fit its parameters.
    """
    name, *words = text.split(":")
    if name not in STRATEGIES:
        near = suggest(name, STRATEGIES) or f"; the strategies are {', '.join(STRATEGIES)}"
        raise InputError(f"plan.strategy is {text!r}: it must be a function or the name of a strategy{near}")
    function = STRATEGIES[name].function
    values = parse_parameters(name, function, words)
    return functools.partial(function, **values) if values else function


def is_registered(text: str) -> bool:
    """Whether a text names a strategy of the table, whatever follows the name."""
    return text.partition(":")[0] in STRATEGIES


def strategy_title(text: str) -> str:
    """Return the title of a strategy, with the values that follow its name."""
    name, _, values = text.partition(":")
    return STRATEGIES[name].title + (f" ({values.replace(':', ', ')})" if values else "")


def strategy_fields(text: str) -> dict[str, Any]:
    """Return the fields of the plan that select a strategy, by name: its name, and others that it needs."""
    return {"strategy": text, **STRATEGIES[text.partition(":")[0]].fields}


def with_strategy(plan: PlanConfig, text: str) -> PlanConfig:
    """Return the plan with a strategy of the table, and with the other fields that it needs."""
    return dataclasses.replace(plan, **strategy_fields(text))


def shown_strategies() -> tuple[str, ...]:
    """Return every strategy of the table, with values for its parameters where its entry has some to show."""
    return tuple(
        ":".join((name, values)) if values else name
        for name, entry in STRATEGIES.items()
        for values in (entry.examples or ("",))
    )
