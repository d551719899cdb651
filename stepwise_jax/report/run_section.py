"""What there is to say about a run: what it reached, its stages, where its time went, and what decided it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.formatting import format_duration, format_percent
from stepwise_jax.report.blocks import Block, Heading, Paragraph, Table
from stepwise_jax.report.cost_figures import KINDS, draw_noise, draw_seconds
from stepwise_jax.report.predictions_section import predictions_blocks
from stepwise_jax.workdir.predictions import read_predictions
from stepwise_jax.workdir.records import SECONDS, Row
from stepwise_jax.workdir.runs import Run


def run_blocks(run: Run, place: int, alone: bool) -> list[Block]:
    """What there is to say about one run, the `place`-th of the page, under its name where it is not alone."""
    level, mark = (2, "") if alone else (3, f"_{place}")
    blocks: list[Block] = [] if alone else [Heading(run.name)]
    blocks += [Heading("Stages", level), stages_table(run)]
    noise = draw_noise(f"noise{mark}", run)
    blocks += [] if noise is None else [Heading("Noise scale and accuracy", level), noise]
    answers = read_predictions(run.folder)
    blocks += [] if answers is None else predictions_blocks(answers, level, mark)
    blocks += [Heading("What it cost", level), *_cost(run, mark)]
    return [*blocks, Heading("What was run", level), identity_table(run)]


def _cost(run: Run, mark: str) -> list[Block]:
    seconds = seconds_by_kind(run)
    pictures = [draw_seconds(f"seconds{mark}", {run.name: seconds})] if sum(seconds.values()) else []
    return [Paragraph(_work(run)), Paragraph(_pace(run)), *pictures, time_table(run)]


def _work(run: Run) -> str:
    """Samples, updates and operations so far."""
    last = run.records.epochs[-1]
    flops = (run.summary or {}).get("flops")
    counted = f", {flops:.3g} floating-point operations" if flops else ""
    return f"{last['examples_seen']:,} samples in {last['updates']:,} updates{counted}."


def verdict(run: Run) -> str:
    """One sentence: what the run reached, at what cost."""
    last = run.records.epochs[-1]
    top1, top5 = scores_reached(run.records.epochs)
    cost = f"{last['examples_seen']:,} samples in {last['updates']:,} updates"
    done, planned = len(run.records.epochs), sum(stage["epochs"] for stage in run.stages)
    if run.summary is None:
        return (
            f"{run.name} is unfinished: {done} of {planned} epochs are done, in stage {last['stage_name']}; "
            f"top-1 is {format_percent(top1)} and top-5 {format_percent(top5)} so far, after {cost}."
        )
    best = format_percent(run.summary["best_top1"])
    stages = f"{len(run.stages)} {'stage' if len(run.stages) == 1 else 'stages'}"
    return (
        f"{run.name} reached {format_percent(top1)} top-1 and {format_percent(top5)} top-5 on the test set at the end "
        f"of {stages} and {planned} epochs ({cost}); its best epoch had {best} top-1."
    )


def setting(run: Run) -> str:
    """One sentence: which network, on which data, where."""
    fields = flat_fields(run.config["experiment"])
    names = ("model.name", "data.name", "data.image_size", "dtype", "seed")
    network, data, size, dtype, seed = (shown(fields.get(name)) for name in names)
    return (
        f"It is {network} on {data} at {size}×{size} pixels in {dtype}, seed {seed}, "
        f"on {shown(run.config.get('device'))}."
    )


def scores_reached(epochs: Sequence[Row]) -> tuple[float | None, float | None]:
    """Top-1 and top-5 of the last of these epochs that was evaluated."""
    scores = [(row["top1"], row["top5"]) for row in epochs if row["top1"] is not None]
    return scores[-1] if scores else (None, None)


def runs_table(runs: Sequence[Run]) -> Table:
    """The runs side by side: scores and cost."""
    header = ("run", "top-1", "top-5", "best top-1", "epochs", "samples seen", "updates", "time (h:mm:ss)")
    return Table(header, tuple(_run_row(run) for run in runs))


def _run_row(run: Run) -> tuple[str, ...]:
    epochs, last = run.records.epochs, run.records.epochs[-1]
    scores = (*scores_reached(epochs), last["best_top1"])
    cost = (f"{len(epochs)}", f"{last['examples_seen']:,}", f"{last['updates']:,}")
    name = run.name if run.summary else f"{run.name} (unfinished)"
    return (name, *map(format_percent, scores), *cost, format_duration(sum(seconds_by_kind(run).values())))


def stages_table(run: Run) -> Table:
    """The planned stages, and what the test set scored at the end of each."""
    header = ("set", "of the data", "examples", "batch size", "learning rate", "drops after epoch", "epochs")
    header += ("updates", "samples", "noise scale (Eq. 10)", "top-1", "top-5")
    return Table(header, tuple(_stage_row(run, place, stage) for place, stage in enumerate(run.stages, start=1)))


def _stage_row(run: Run, place: int, stage: Row) -> tuple[str, ...]:
    epochs = [row for row in run.records.epochs if row["stage"] == place]
    examples, size, rate = stage["examples"], stage["batch_size"], stage["learning_rate"]
    reached = map(format_percent, scores_reached(epochs)) if len(epochs) == stage["epochs"] else ("–", "–")
    return (
        str(stage["name"]),
        f"{100 * stage['fraction']:.4g} %",
        f"{examples:,}",
        f"{size:,}",
        f"{rate:.3g}",
        ", ".join(map(str, stage.get("milestones", []))) or "–",
        f"{stage['epochs']}",
        f"{stage['epochs'] * (examples // size):,}",
        f"{stage['epochs'] * examples:,}",
        f"{rate * examples / size:.3g}",
        *reached,
    )


def seconds_by_kind(run: Run) -> dict[str, float]:
    """Seconds by kind, of the whole run where it is finished, else of its epochs."""
    if run.summary is not None:
        return {kind: run.summary["seconds"].get(kind, 0.0) for kind in SECONDS}
    return {kind: sum(row["seconds"].get(kind, 0.0) for row in run.records.epochs) for kind in SECONDS}


def time_table(run: Run) -> Table:
    """Seconds by kind, and their share of the whole."""
    seconds = seconds_by_kind(run)
    whole = sum(seconds.values())
    rows = [
        (KINDS[kind], f"{spent:,.1f}", f"{100 * spent / whole:.1f} %" if whole else "–")
        for kind, spent in seconds.items()
    ]
    return Table(("kind", "seconds", "share"), (*rows, ("all", f"{whole:,.1f}", "100.0 %")))


def _pace(run: Run) -> str:
    seconds = seconds_by_kind(run)
    steps = seconds["train"] + seconds["input_wait"]
    if steps == 0:
        return "No time was recorded."
    examples = run.records.epochs[-1]["examples_seen"]
    wait = format_percent(seconds["input_wait"] / steps)
    return f"{examples / steps:,.0f} images/s while training; {wait} of that time was spent waiting for input."


def identity_table(run: Run) -> Table:
    """Everything that decides what was computed, and what it ran on."""
    config = run.config
    subsets = "; ".join(f"{row['name']}: {row['split']}, SHA-256 {row['sha256'][:12]}" for row in run.records.stages)
    versions = flat_fields(config.get("versions") or {})
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)
    rows = [
        ("device", shown(config.get("device"))),
        ("versions", libraries),
        ("configuration", shown(config.get("config"))),
    ]
    rows += [
        ("subsets", subsets),
        *((name, _field(name, value)) for name, value in flat_fields(config["experiment"]).items()),
    ]
    return Table(("field", "value"), tuple(rows), prose=True)


def _field(name: str, value: Any) -> str:
    """A field's value; of a place its last part alone, for a report is shown to others."""
    places = ("data.root", "data.data_dir", "model.initial_weights")
    return Path(value).name if name in places and isinstance(value, str) else shown(value)


def flat_fields(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= flat_fields(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def shown(value: Any) -> str:
    """A field's value as people read it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return "–" if value is None else str(value)
