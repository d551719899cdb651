"""The page of comparisons that differ in which random numbers they vary: how much variance each stream brings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.report.blocks import Block, Heading, Paragraph, Table
from stepwise_jax.report.comparisons.arms import arm_label
from stepwise_jax.studies import comparison_folder
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_table import VARIANCE_HEADER, FinishedRuns, variance_row
from stepwise_jax.studies.seeds import STREAM_FIELDS, STREAM_LABELS
from stepwise_jax.studies.statistics.components import variance_components
from stepwise_jax.workdir.folder import conflicting_fields

_EVERY_STREAM = "every stream"

_NOTE = (
    "The standard deviation of the final top-1 over runs that differ in the named random numbers only, with its 95 % "
    "interval from the chi-square distribution of normal scores. Shares are of the sum over the streams that were "
    "varied one at a time: what two streams do together is in none of them, and the others were held at one seed."
)


def variance_page(roots: Sequence[Path]) -> tuple[Block, ...]:
    """Return the page of several comparisons of the same arms that differ in which random numbers they vary.

    Raises:
      InputError: if they are not such comparisons.
    """
    compared = {root: comparison_folder.read_comparison(root) for root in roots}
    _check_same(compared)
    names = {root: _stream_label(each) for root, each in compared.items()}
    if len(set(names.values())) < len(names):
        raise InputError(f"two of {', '.join(map(str, roots))} vary the same random numbers: report one of them")
    finished = {names[root]: comparison_folder.read_finished_runs(each, root) for root, each in compared.items()}
    first = compared[roots[0]]
    rows = [row for arm in first.arms for row in _variance_rows(arm.name, finished)]
    return (
        Heading("What makes the runs differ", level=1),
        Paragraph(_NOTE),
        Table(VARIANCE_HEADER, tuple(rows)),
        Heading("Names in commands"),
        _names_table(list(compared.values())),
    )


def _stream_label(compared: Comparison) -> str:
    return ", ".join(STREAM_LABELS[name] for name in compared.protocol.vary) or _EVERY_STREAM


def _names_table(compared: Sequence[Comparison]) -> Table:
    arms = ((arm_label(arm.name), arm.title, arm.name) for arm in compared[0].arms)
    streams = {name for each in compared for name in each.protocol.vary}
    varied = (
        (label, f"the seed of {STREAM_FIELDS[name]}", name) for name, label in STREAM_LABELS.items() if name in streams
    )
    return Table(("here", "what it is", "in commands"), (*arms, *varied), prose=True)


def _check_same(compared: Mapping[Path, Comparison]) -> None:
    (root, first), *others = compared.items()
    for other, each in others:
        differing = conflicting_fields(each.experiment, first.experiment)
        if differing or each.arms != first.arms:
            what = differing[0] if differing else "other strategies"
            raise InputError(f"{other} and {root} are not the same comparison with other random numbers ({what})")


def _variance_rows(name: str, finished: Mapping[str, FinishedRuns]) -> list[tuple[str, ...]]:
    scores = {stream: [run.summary["top1"] for run in runs[name].values()] for stream, runs in finished.items()}
    every = {_EVERY_STREAM: scores.pop(_EVERY_STREAM)} if _EVERY_STREAM in scores else {}
    components = (*variance_components(scores), *(replace(each, share=None) for each in variance_components(every)))
    return [variance_row(arm_label(name), each) for each in components]
