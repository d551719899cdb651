"""The section about one run: its scores, stages, time and configuration."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from stepwise_jax.formatting import (
    describe_scores,
    format_duration,
    format_metric,
    format_percent,
    metric_label,
    without_losses,
)
from stepwise_jax.report.blocks import Block, Heading, Paragraph, Picture, Table
from stepwise_jax.report.figures import WIDTH, Theme, make_picture
from stepwise_jax.report.noise_section import draw_noise, measured_noise_blocks
from stepwise_jax.report.predictions_section import predictions_blocks
from stepwise_jax.workdir.predictions import read_predictions
from stepwise_jax.workdir.records import TIME_KINDS, Row, row_metrics
from stepwise_jax.workdir.runs import Run

TIME_KIND_LABELS = {
    "train": "training",
    "input_wait": "waiting for input",
    "compile": "compiling",
    "evaluate": "evaluating",
    "checkpoint": "writing checkpoints",
}
"""Labels for the kinds of time in a run's records."""


def run_blocks(run: Run, number: int, alone: bool) -> list[Block]:
    """Return the blocks for one run, the `number`-th of the page, under its name if it is not alone."""
    level, suffix = (2, "") if alone else (3, f"_{number}")
    blocks: list[Block] = [] if alone else [Heading(run.name)]
    blocks += [Heading("Stages", level), stages_table(run), *shared_images_blocks(run)]
    noise = draw_noise(f"noise{suffix}", run)
    blocks += [] if noise is None else [Heading("Noise scale and accuracy", level), noise]
    blocks += measured_noise_blocks(run, level, suffix)
    predictions = read_predictions(run.folder)
    blocks += [] if predictions is None else predictions_blocks(predictions, level, suffix)
    blocks += [Heading("Cost", level), *_cost(run, suffix)]
    return [*blocks, Heading("Configuration", level), identity_table(run)]


def shared_images_blocks(run: Run) -> list[Block]:
    """Return a sentence where the run found test images among its training images."""
    found = [row["message"] for row in run.records.events if row["name"] == "duplicates"]
    return [Paragraph(f"{found[-1]}: they have the pixels of images that were trained on.")] if found else []


def _cost(run: Run, suffix: str) -> list[Block]:
    seconds = seconds_by_kind(run)
    pictures = [draw_seconds(f"seconds{suffix}", {run.name: seconds})] if sum(seconds.values()) else []
    return [Paragraph(_work(run)), Paragraph(_pace(run)), *pictures, time_table(run)]


def draw_seconds(name: str, seconds: Mapping[str, Mapping[str, float]]) -> Picture:
    """Draw one stacked bar per label; `seconds` maps a label, such as a run's name, to seconds by kind."""
    description = f"Seconds by kind of {', '.join(seconds)}"
    return make_picture(name, description, [(description, partial(_seconds_figure, seconds))])


def _seconds_figure(seconds: Mapping[str, Mapping[str, float]], theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.0 + 0.32 * len(seconds)), layout="constrained")
    axes = figure.subplots()
    lefts = dict.fromkeys(seconds, 0.0)
    for index, (kind, label) in enumerate(TIME_KIND_LABELS.items()):
        values = [each.get(kind, 0.0) for each in seconds.values()]
        # The edges separate neighbouring bars without relying on colour.
        axes.barh(
            range(len(seconds)),
            values,
            0.7,
            list(lefts.values()),
            color=theme.palette[index],
            label=label,
            edgecolor=theme.background,
        )
        lefts = {name: lefts[name] + value for name, value in zip(lefts, values, strict=True)}
    axes.set(yticks=range(len(seconds)), ylim=(len(seconds) - 0.4, -0.6), xlabel="seconds")
    axes.set_yticklabels(list(seconds) if len(seconds) > 1 else [""])
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def _work(run: Run) -> str:
    """Samples, updates and operations so far."""
    last = run.records.epochs[-1]
    flops = (run.summary or {}).get("flops")
    counted = f", {flops:.3g} floating-point operations" if flops else ""
    return f"{last['examples_seen']:,} samples in {last['updates']:,} updates{counted}."


def run_verdict(run: Run) -> str:
    """Return one sentence about the scores that the run reached, and their cost."""
    last = run.records.epochs[-1]
    # Runs before 0.2 do not say how many images they were tested on.
    images = (run.summary or {}).get("test_images")
    scores = describe_scores(scores_reached(run.records.epochs), images) or "not scored yet"
    cost = f"{last['examples_seen']:,} samples in {last['updates']:,} updates"
    done, planned = len(run.records.epochs), sum(stage["epochs"] for stage in run.stages)
    if run.summary is None:
        return (
            f"{run.name} is unfinished: {done} of {planned} epochs are done, in stage {last['stage_name']}; "
            f"{scores} so far, after {cost}."
        )
    best = format_percent(run.summary["best_top1"])
    stages = f"{len(run.stages)} {'stage' if len(run.stages) == 1 else 'stages'}"
    return (
        f"{run.name} reached {scores} on the test set at the end of "
        f"{stages} and {planned} epochs ({cost}); its best epoch had {best} top-1."
    )


def setting_sentence(run: Run) -> str:
    """Return one sentence about the network, the data and the device."""
    fields = flat_fields(run.config["experiment"])
    names = ("model.name", "data.name", "data.image_size", "dtype", "seed")
    network, data, size, dtype, seed = (format_value(fields.get(name)) for name in names)
    return (
        f"It is {network} on {data} at {size}×{size} pixels in {dtype}, seed {seed}, "
        f"on {format_value(run.config.get('device'))}."
    )


def scores_reached(epochs: Sequence[Row]) -> dict[str, float]:
    """Return the scores of the last evaluated epoch, without losses; empty if there is none."""
    scores = [without_losses(row_metrics(row)) for row in epochs if row["top1"] is not None]
    return scores[-1] if scores else {}


def metric_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the metrics that any of these runs has, in order, without losses."""
    rows = (row for run in runs for row in run.records.epochs)
    return tuple(dict.fromkeys(name for row in rows for name in without_losses(row_metrics(row))))


def _score_cells(names: Sequence[str], scores: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(format_metric(name, scores.get(name)) for name in names)


def runs_table(runs: Sequence[Run]) -> Table:
    """Return a table of the scores and the cost of each run."""
    names = metric_names(runs)
    header = ("run", *map(metric_label, names), "best top-1", "epochs", "samples seen", "updates", "time (h:mm:ss)")
    return Table(header, tuple(_run_row(run, names) for run in runs))


def _run_row(run: Run, names: Sequence[str]) -> tuple[str, ...]:
    epochs, last = run.records.epochs, run.records.epochs[-1]
    scores = (*_score_cells(names, scores_reached(epochs)), format_percent(last["best_top1"]))
    cost = (f"{len(epochs)}", f"{last['examples_seen']:,}", f"{last['updates']:,}")
    name = run.name if run.summary else f"{run.name} (unfinished)"
    return (name, *scores, *cost, format_duration(sum(seconds_by_kind(run).values())))


def stages_table(run: Run) -> Table:
    """Return a table of the planned stages, with the test scores at the end of each."""
    header = ("set", "of the data", "examples", "batch size", "learning rate", "drops after epoch", "epochs")
    names = metric_names([run])
    header += ("updates", "samples", "noise scale (Eq. 10)", *map(metric_label, names))
    rows = (_stage_row(run, number, stage, names) for number, stage in enumerate(run.stages, start=1))
    return Table(header, tuple(rows))


def _stage_row(run: Run, number: int, stage: Row, names: Sequence[str]) -> tuple[str, ...]:
    epochs = [row for row in run.records.epochs if row["stage"] == number]
    examples, size, rate = stage["examples"], stage["batch_size"], stage["learning_rate"]
    reached = _score_cells(names, scores_reached(epochs) if len(epochs) == stage["epochs"] else {})
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
    """Return the seconds by kind: of the whole run if it is finished, otherwise of its epochs."""
    if run.summary is not None:
        return {kind: run.summary["seconds"].get(kind, 0.0) for kind in TIME_KINDS}
    return {kind: sum(row["seconds"].get(kind, 0.0) for row in run.records.epochs) for kind in TIME_KINDS}


def time_table(run: Run) -> Table:
    """Return a table of the seconds by kind, and their share of the total."""
    seconds = seconds_by_kind(run)
    total = sum(seconds.values())
    rows = [
        (TIME_KIND_LABELS[kind], f"{spent:,.1f}", f"{100 * spent / total:.1f} %" if total else "–")
        for kind, spent in seconds.items()
    ]
    return Table(("kind", "seconds", "share"), (*rows, ("all", f"{total:,.1f}", "100.0 %")))


def _pace(run: Run) -> str:
    seconds = seconds_by_kind(run)
    steps = seconds["train"] + seconds["input_wait"]
    if steps == 0:
        return "No time was recorded."
    examples = run.records.epochs[-1]["examples_seen"]
    wait = format_percent(seconds["input_wait"] / steps)
    return f"{examples / steps:,.0f} images/s while training; {wait} of that time was spent waiting for input."


def identity_table(run: Run) -> Table:
    """Return a table of everything that determines the result, and of the device."""
    config = run.config
    subsets = "; ".join(f"{row['name']}: {row['split']}, SHA-256 {row['sha256'][:12]}" for row in run.records.stages)
    versions = flat_fields(config.get("versions") or {})
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)
    rows = [
        ("device", format_value(config.get("device"))),
        ("versions", libraries),
        ("configuration", format_value(config.get("config"))),
    ]
    rows += [
        ("subsets", subsets),
        *((name, _field(name, value)) for name, value in flat_fields(config["experiment"]).items()),
    ]
    return Table(("field", "value"), tuple(rows), prose=True)


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
