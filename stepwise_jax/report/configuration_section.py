"""The configurations of runs: what is not as by default, where several runs differ, and everything else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import experiment_to_dict
from stepwise_jax.report.blocks import Block, Folded, Paragraph, Table
from stepwise_jax.workdir.runs import Run

_HEADER = ("field", "value")


def configuration_blocks(run: Run) -> list[Block]:
    """Return a table of the fields that are not as by default, then the others and the origin of the run, folded."""
    fields = flat_fields(run.config["experiment"])
    defaults = flat_fields(experiment_to_dict(ExperimentConfig()))
    changed = {name for name, value in fields.items() if name not in defaults or not _same(value, defaults[name])}
    own, others = (
        tuple((name, _field(name, value)) for name, value in fields.items() if (name in changed) == chosen)
        for chosen in (True, False)
    )
    return [
        *([Table(_HEADER, own, prose=True)] if own else [Paragraph("Every field has its default.")]),
        Folded(f"{len(others)} fields with their defaults", (Table(_HEADER, others, prose=True),)),
        Folded("Device, versions and subsets", (origin_table(run),)),
    ]


def _same(value: Any, default: Any) -> bool:
    """Whether values are equal, where a recorded list is a default's tuple."""
    return format_value(value) == format_value(default)


def origin_table(run: Run) -> Table:
    """Return a table of the device, the versions and the subsets of a run."""
    config = run.config
    subsets = "; ".join(f"{row['name']}: {row['split']}, SHA-256 {row['sha256'][:12]}" for row in run.records.stages)
    versions = flat_fields(config.get("versions") or {})
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)
    rows = (
        ("device", format_value(config.get("device"))),
        ("versions", libraries),
        ("configuration", format_value(config.get("config"))),
        ("subsets", subsets),
    )
    return Table(_HEADER, rows, prose=True)


def differing_fields(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """Return the fields in which configurations differ, by dotted name, with the value of each run."""
    fields = [flat_fields(run.config["experiment"]) for run in runs]
    names = dict.fromkeys(name for of_run in fields for name in of_run)
    values = {name: tuple(_field(name, of_run.get(name)) for of_run in fields) for name in names}
    return {name: of_runs for name, of_runs in values.items() if len(set(of_runs)) > 1}


def _field(name: str, value: Any) -> str:
    """A field's value; only the last part of a path, because reports are shared with others."""
    paths = ("data.root", "data.data_dir", "model.initial_weights")
    return Path(value).name if name in paths and isinstance(value, str) else format_value(value)


def flat_fields(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= flat_fields(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def format_value(value: Any) -> str:
    """Return a field's value as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    return "–" if value is None else str(value)
