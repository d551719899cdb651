"""A run's folder, finished or not, as everything that shows results reads it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.formatting import replace_unprintable
from stepwise_jax.workdir.files import CONFIG, RECORDS, SUMMARY
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.record_file import Records, read_records
from stepwise_jax.workdir.records import Row


@dataclass(frozen=True)
class Run:
    """What a run's folder tells, finished or not, with at least one finished epoch."""

    name: str
    """The folder's name, with as much of its path as tells it from the other runs."""
    config: Row
    """The document `config.json`."""
    records: Records
    summary: Row | None
    """The document `summary.json`; None where the run is unfinished."""
    folder: Path

    @property
    def stages(self) -> Sequence[Row]:
        """The planned stages."""
        return self.config["stages"]


def read_runs(workdirs: Iterable[Path]) -> tuple[Run, ...]:
    """The runs in these folders, in order, each folder once.

    Raises:
      InputError: for a folder that is no run or has no finished epoch.
    """
    folders = tuple(dict.fromkeys(Path(workdir).resolve() for workdir in workdirs))
    names = _distinct_names(folders)
    return tuple(_read_run(folder, replace_unprintable(name)) for folder, name in zip(folders, names, strict=True))


def _read_run(workdir: Path, name: str) -> Run:
    config = read_json(workdir / CONFIG)
    if not isinstance(config, dict) or not {"experiment", "stages"} <= config.keys():
        raise InputError(f"{workdir / 'config.json'} is no run's: it has no experiment and stages")
    records = read_records(workdir)
    if not records.epochs:
        raise InputError(f"{workdir} has no finished epoch yet: there is nothing to show")
    summary = read_json(workdir / SUMMARY) if (workdir / SUMMARY).exists() else None
    damaged = _damaged(config, records, summary)
    if damaged:
        raise InputError(f"{workdir / damaged} is damaged: it is JSON, but not what a run writes there")
    return Run(name, config, records, summary, workdir)


def read_summary(workdir: Path) -> Row:
    """What a finished run reached.

    Raises:
      InputError: where `summary.json` is missing, or not what a run writes there.
    """
    summary = read_json(workdir / SUMMARY)
    seconds = summary.get("seconds") if isinstance(summary, dict) else None
    if not _has_numbers(summary, _REACHED) or not isinstance(seconds, dict) or not _has_numbers(seconds, seconds):
        raise InputError(f"{workdir / 'summary.json'} is damaged: it is JSON, but not what a run writes there")
    return summary


_PLANNED = ("fraction", "examples", "batch_size", "learning_rate", "epochs", "updates", "samples", "noise_scale")

_RECORDED = ("stage", "epoch", "step", "examples_seen", "learning_rate", "batch_size", "noise_scale")

_MEASURED = ("train_loss", "test_loss", "top1", "top5", "best_top1")

_REACHED = ("top1", "top5", "best_top1", "samples", "updates")


def _damaged(config: Row, records: Records, summary: Any) -> str | None:
    """The name of the file that lacks what every run writes, or has something else in its place."""
    stages = config["stages"]
    whole = isinstance(stages, list) and stages and isinstance(config["experiment"], dict)
    if not whole or not all(_is_stage(stage) for stage in stages):
        return CONFIG
    if not all(_is_epoch(row) and 1 <= row["stage"] <= len(stages) for row in records.epochs):
        return RECORDS
    if summary is not None and not (_has_numbers(summary, _REACHED) and _has_seconds(summary) and "stages" in summary):
        return SUMMARY
    return None


def _is_stage(stage: Any) -> bool:
    return _has_numbers(stage, _PLANNED) and "name" in stage and isinstance(stage.get("milestones", []), list)


def _is_epoch(row: Row) -> bool:
    measured = all(isinstance(row[name], int | float | None) for name in _MEASURED)
    return measured and _has_numbers(row, _RECORDED) and _has_seconds(row)


def _has_seconds(row: Row) -> bool:
    seconds = row.get("seconds")
    return isinstance(seconds, dict) and all(isinstance(each, int | float) for each in seconds.values())


def _has_numbers(row: Any, names: Iterable[str]) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), int | float) for name in names)


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many parts as tell all of them apart."""
    longest = max((len(folder.parts) for folder in folders), default=1)
    for parts in range(1, longest + 1):
        names = [str(Path(*folder.parts[-parts:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
