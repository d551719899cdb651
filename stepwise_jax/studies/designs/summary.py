"""The sentences about the design of a comparison that stand below its table and in its report."""

from pathlib import Path

from stepwise_jax.formatting import format_count
from stepwise_jax.studies.comparison import Protocol
from stepwise_jax.studies.comparison_file import read_comparison, read_design_of, read_history, read_tuning
from stepwise_jax.studies.designs.document import Design
from stepwise_jax.studies.designs.history import History, describe_additions, describe_looks, find_additions
from stepwise_jax.studies.seeds import describe_vary
from stepwise_jax.studies.statistics.multiplicity import false_alarm_bound
from stepwise_jax.studies.tuning import describe_tuning


def describe_folder(root: Path) -> tuple[str, ...]:
    """What the comparison in a folder fixed beforehand, what was added after looking, and how it was tuned."""
    compared, design, history = read_comparison(root), read_design_of(root), read_history(root)
    fixed = "" if design is None else _describe_design(design, compared.protocol)
    varied = describe_vary(compared.protocol.vary, compared.experiment.seed)
    added = describe_additions(find_additions(history, compared))
    looks = "" if design is None and not added else _describe_looks(history, compared.protocol)
    return tuple(each for each in (fixed, varied, added, looks, describe_tuning(read_tuning(root))) if each)


def _describe_looks(history: History, protocol: Protocol) -> str:
    planned, taken = max(1, len(protocol.looks)), len(history.looks)
    rate = false_alarm_bound(planned, taken)
    beyond = (
        f" More than the {planned} planned: false alarms at a rate of up to {100 * rate:.1f} %."
        if taken > planned
        else ""
    )
    return describe_looks(history.looks) + beyond


def _describe_design(design: Design, protocol: Protocol) -> str:
    looks, seeds = " and ".join(map(str, protocol.looks)), format_count(len(design.seeds), "seed")
    return (
        f"Designed beforehand ({design.sha256[:12]}): {len(design.arms())} strategies, {seeds}, "
        f"a margin of ± {protocol.margin:g} points, a look after {looks} seeds; {design.document['stopping']}."
    )
