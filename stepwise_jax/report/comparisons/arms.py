"""How a page names the arms of a comparison: in words, each with one colour."""

import dataclasses
from collections.abc import Mapping, Sequence

from stepwise_jax.report.blocks import Table
from stepwise_jax.studies.comparison import Arm
from stepwise_jax.studies.statistics.paired import Difference


@dataclasses.dataclass(frozen=True)
class ArmStyle:
    """How a page shows one arm."""

    label: str
    title: str
    color: int
    """The place of its colour in the palette."""


ArmStyles = Mapping[str, ArmStyle]
"""By the arm's name, in the order of the comparison."""


def arm_styles(arms: Sequence[Arm]) -> ArmStyles:
    """Return how to show each arm."""
    return {arm.name: ArmStyle(arm_label(arm.name), _title(arm), color) for color, arm in enumerate(arms)}


def _title(arm: Arm) -> str:
    """What the arm's title says beyond its name: nothing for a row of a configuration (`constant_b of masks.py`)."""
    return "" if arm.title.startswith(f"{arm.name} of ") else arm.title


def arm_label(name: str) -> str:
    """Return a name in words: `equal samples` for "equal_samples", `pacing (root, start=0.1)` with parameters."""
    first, *values = name.split(":")
    words = "own configuration" if name == "own" else first.replace("_", " ")
    return f"{words} ({', '.join(values)})" if values else words


def with_labels(differences: Sequence[Difference], styles: ArmStyles) -> list[Difference]:
    """Return differences whose arms have their labels."""
    return [dataclasses.replace(each, other=styles[each.other].label) for each in differences]


def styled_table(table: Table, styles: ArmStyles, titles: bool = False) -> Table:
    """Return a table whose first cells are names of arms with their labels and colours, and with `titles` below."""
    arms = [styles[row[0]] for row in table.rows]
    rows = tuple((arm.label, *row[1:]) for arm, row in zip(arms, table.rows, strict=True))
    details = tuple(arm.title for arm in arms) if titles else ()
    return dataclasses.replace(table, rows=rows, colors=tuple(arm.color for arm in arms), details=details)
