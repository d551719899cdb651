"""The section about one run: its scores, stages, time and configuration."""

from collections.abc import Mapping, Sequence

from stepwise_jax.formatting import (
    describe_samples,
    describe_scores,
    format_duration,
    format_metric,
    format_operations,
    format_percent,
    metric_label,
    without_losses,
)
from stepwise_jax.report.blocks import Block, Folded, Heading, Paragraph, Table
from stepwise_jax.report.charts.seconds import TIME_KIND_LABELS, draw_seconds, seconds_by_kind
from stepwise_jax.report.configuration_section import (
    configuration_blocks,
    differing_fields,
    flat_fields,
    format_value,
)
from stepwise_jax.report.noise_section import draw_noise, measured_noise_blocks
from stepwise_jax.report.paper_section import paper_blocks
from stepwise_jax.report.predictions_section import predictions_blocks
from stepwise_jax.workdir.predictions import read_predictions
from stepwise_jax.workdir.records import Row, row_metrics
from stepwise_jax.workdir.runs import Run

_MOST_COLUMNS = 4
"""Up to this many differing fields are columns of the table of runs."""

_STAGES_LEAD = (
    "What each stage trained on, and the test scores at its end; look at how much each step adds. Planned samples are "
    "epochs times examples; fed are the full batches, without the rest of each epoch."
)

_COST_LEAD = "Where the time went; if waiting for input is a large share, the data and not the device set the pace."


def run_blocks(run: Run) -> list[Block]:
    """Return the sections about a run that has the page to itself, but its curves."""
    predictions = read_predictions(run.folder)
    return [
        Heading("Stages"),
        Paragraph(_STAGES_LEAD),
        stages_table(run),
        *paper_blocks([run]),
        *([] if predictions is None else predictions_blocks(predictions, 2, "")),
        *_noise_blocks(run, 2, ""),
        Heading("Cost"),
        Paragraph(_COST_LEAD),
        *_cost(run),
        Heading("Configuration"),
        Paragraph("What is not as by default; look here before you compare this run with another."),
        *configuration_blocks(run),
    ]


def folded_run(run: Run, number: int, pictures: bool) -> list[Block]:
    """Return the section of the `number`-th run of a page with several, with its details folded."""
    suffix = f"_{number}"
    predictions = read_predictions(run.folder)
    noise = _noise_blocks(run, 3, suffix) if pictures else []
    shown = [] if predictions is None else predictions_blocks(predictions, 3, suffix, pictures)
    cost: list[Block] = [Heading("Cost", 3), Paragraph(describe_work(run)), Paragraph(_pace(run)), time_table(run)]
    details = (stages_table(run), *shown, *noise, *cost, Heading("Configuration", 3), *configuration_blocks(run))
    return [
        Heading(run.name),
        Paragraph(f"{run_verdict(run)} {setting_sentence(run)}"),
        *shared_images_blocks(run),
        Folded(f"Stages, predictions, cost and configuration of {run.name}", details),
    ]


def shared_images_blocks(run: Run) -> list[Block]:
    """Return a sentence where the run found test images among its training images."""
    found = [row["message"] for row in run.records.events if row["name"] == "duplicates"]
    return [Paragraph(f"{found[-1]}: they have the pixels of images that were trained on.")] if found else []


def _noise_blocks(run: Run, level: int, suffix: str) -> list[Block]:
    picture = draw_noise(f"noise{suffix}", run)
    lead = Paragraph(
        "One mark for each epoch; look at whether accuracy rises as the noise scale of Eq. 10 falls, and in which "
        "stage."
    )
    own = [] if picture is None else [Heading("Noise scale and accuracy", level), lead, picture]
    return [*own, *measured_noise_blocks(run, level, suffix)]


def _cost(run: Run) -> list[Block]:
    seconds = seconds_by_kind(run)
    pictures = [draw_seconds("seconds", {run.name: seconds})] if sum(seconds.values()) else []
    return [Paragraph(describe_work(run)), Paragraph(_pace(run)), *pictures, time_table(run)]


def describe_work(run: Run) -> str:
    """Return one sentence about the samples, updates and operations so far."""
    flops = (run.summary or {}).get("flops")
    operations = f", {format_operations(flops)}" if flops else ""
    return f"{_cost_so_far(run)}{operations}."


def _cost_so_far(run: Run) -> str:
    last = run.records.epochs[-1]
    planned = sum(stage["epochs"] * stage["examples"] for stage in run.stages)
    return f"{describe_samples(planned, last['examples_seen'])} in {last['updates']:,} updates"


def run_verdict(run: Run) -> str:
    """Return one sentence about the scores that the run reached, and their cost."""
    last = run.records.epochs[-1]
    # Runs before 0.2 do not say how many images they were tested on.
    images = (run.summary or {}).get("test_images")
    scores = describe_scores(scores_reached(run.records.epochs), images) or "not scored yet"
    cost = _cost_so_far(run)
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


def runs_verdict(runs: Sequence[Run]) -> str:
    """Return what can be said about several runs at once: the highest and the lowest score."""
    scores = {run.name: scores_reached(run.records.epochs).get("top1") for run in runs}
    known = {name: score for name, score in scores.items() if score is not None}
    if not known:
        return f"None of {len(runs)} runs has a score yet."
    best, worst = (choose(known, key=lambda name: known[name]) for choose in (max, min))
    return (
        f"Of {len(runs)} runs, {best} scored the highest top-1, {format_percent(known[best])}, and {worst} the lowest, "
        f"{format_percent(known[worst])}. Single runs differ by chance as well: the command compare trains "
        "each with several seeds."
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
    """Return a table of the runs: top-1, the fields in which they differ, the other scores and the cost."""
    names, differences = metric_names(runs), differing_fields(runs)
    if len(differences) > _MOST_COLUMNS:
        differences = {}
    first, *others = map(metric_label, names or ("top1",))
    header = ("run", first, *(name.removeprefix("plan.") for name in differences), *others, "best top-1")
    header += ("epochs", "samples planned", "samples fed", "updates", "time (h:mm:ss)")
    fields = [tuple(values[place] for values in differences.values()) for place in range(len(runs))]
    rows = (_run_row(run, each, names) for run, each in zip(runs, fields, strict=True))
    return Table(header, tuple(rows), colors=tuple(range(len(runs))))


def differences_blocks(runs: Sequence[Run]) -> list[Block]:
    """Return what the table of runs leaves out: the fields in which they differ, if these are many."""
    differences = differing_fields(runs)
    if not differences:
        return [Paragraph("All runs have the same configuration.")]
    if len(differences) <= _MOST_COLUMNS:
        return []
    rows = tuple((name, *values) for name, values in differences.items())
    return [
        Paragraph("Their configurations differ in these fields:"),
        Table(("field", *(run.name for run in runs)), rows, prose=True),
    ]


def _run_row(run: Run, fields: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    epochs, last = run.records.epochs, run.records.epochs[-1]
    first, *others = _score_cells(names or ("top1",), scores_reached(epochs))
    planned = sum(stage["epochs"] * stage["examples"] for stage in run.stages)
    cost = (f"{len(epochs)}", f"{planned:,}", f"{last['examples_seen']:,}", f"{last['updates']:,}")
    name = run.name if run.summary else f"{run.name} (unfinished)"
    scores = (*others, format_percent(last["best_top1"]))
    return (name, first, *fields, *scores, *cost, format_duration(sum(seconds_by_kind(run).values())))


def stages_table(run: Run) -> Table:
    """Return a table of the planned stages, with the test scores at the end of each."""
    names = metric_names([run])
    header = ("set", *map(metric_label, names), "of the data", "examples", "batch size", "learning rate", "epochs")
    header += ("drops after epoch", "updates", "samples planned", "samples fed", "noise scale (Eq. 10)")
    rows = (_stage_row(run, number, stage, names) for number, stage in enumerate(run.stages, start=1))
    return Table(header, tuple(rows))


def _stage_row(run: Run, number: int, stage: Row, names: Sequence[str]) -> tuple[str, ...]:
    epochs = [row for row in run.records.epochs if row["stage"] == number]
    examples, size, rate = stage["examples"], stage["batch_size"], stage["learning_rate"]
    updates = stage["epochs"] * (examples // size)
    return (
        str(stage["name"]),
        *_score_cells(names, scores_reached(epochs) if len(epochs) == stage["epochs"] else {}),
        f"{100 * stage['fraction']:.4g} %",
        f"{examples:,}",
        f"{size:,}",
        f"{rate:.3g}",
        f"{stage['epochs']}",
        ", ".join(map(str, stage.get("milestones", []))) or "–",
        f"{updates:,}",
        f"{stage['epochs'] * examples:,}",
        f"{updates * size:,}",
        f"{rate * examples / size:.3g}",
    )


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
