"""Tables that the commands print: stages, plans, results, memory, predictions."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepwise_jax.cli.console import PIPE_WIDTH, make_console
from stepwise_jax.formatting import (
    describe_samples,
    describe_scores,
    format_duration,
    format_estimate,
    format_metric,
    format_mib,
    format_number,
    format_percent,
    metric_label,
    without_losses,
)
from stepwise_jax.workdir.records import Row, row_metrics

_COLUMNS = {
    "name": ("set", str),
    "fraction": ("data", lambda value: f"{100 * value:.4g} %"),
    "examples": ("examples", "{:,}".format),
    "batch_size": ("batch", str),
    "learning_rate": ("rate", "{:.3g}".format),
    "milestones": ("drops\nafter", lambda value: ", ".join(map(str, value)) or "–"),
    "epochs": ("epochs", str),
    "updates": ("updates", "{:,}".format),
    "samples": ("samples\nplanned", "{:,}".format),
    "noise_scale": ("noise\nscale", "{:.3g}".format),
    "noise_scale_exact": ("exact\n(Eq. 5)", "{:.3g}".format),
    "image_size": ("image\nsize", lambda value: str(value or "–")),
    "microbatches": ("micro-\nbatches", str),
    "draw": ("draw", str),
    "warmup_epochs": ("warm-up\nepochs", str),
    "hyperparameters": ("optimizer", lambda values: ", ".join(f"{k} {v:g}" for k, v in values.items()) or "–"),
}

# Fields that the paper does not have, shown only if a stage has another value.
_PLAIN: dict[str, Any] = {
    "image_size": None,
    "microbatches": 1,
    "draw": "nested",
    "warmup_epochs": 0,
    "hyperparameters": {},
}

# Columns to show beside scores, and on narrower terminals.
_NARROWER = (
    ("name", "examples", "batch_size", "learning_rate", "epochs", "updates", "samples", "noise_scale"),
    ("name", "examples", "batch_size", "learning_rate", "epochs"),
)


def make_stages_table(rows: Sequence[Row], columns: Sequence[str] | None = None, title: str | None = None) -> Table:
    """A table of planned stages.

    Args:
      rows: one for each stage, with the fields of `plan --json`, and `metrics` by name if it has scores.
      columns: the fields to show beside the metrics and whatever the paper does not have; by default all of the rows.
      title: a line above the table.
    """
    metrics = tuple(dict.fromkeys(name for row in rows for name in row.get("metrics", ())))
    heading = None if title is None else Text(title)
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    special = [name for name, plain in _PLAIN.items() if any(row.get(name, plain) != plain for row in rows)]
    common = [name for name in _COLUMNS if name not in _PLAIN]
    shown = [*(name for name in columns or common if any(name in row for row in rows)), *special]
    for name in shown:
        justify = "left" if name == "name" else "right"
        table.add_column(_COLUMNS[name][0], justify=justify, vertical="bottom", no_wrap=True)
    for name in metrics:
        table.add_column(metric_label(name), justify="right", vertical="bottom", no_wrap=True)
    for row in rows:
        fields = (_COLUMNS[name][1](row[name]) if name in row else "–" for name in shown)
        scores = (format_metric(name, row.get("metrics", {}).get(name)) for name in metrics)
        table.add_row(*map(Text, (*fields, *scores)))
    return table


def print_stages(rows: Sequence[Row], title: str | None = None, stream: TextIO | None = None) -> None:
    """Prints the table of stages, by default on stdout, with as many columns as fit."""
    console = make_console(stream)
    choices = _NARROWER if any("metrics" in row for row in rows) else (None, *_NARROWER)
    tables = [make_stages_table(rows, columns, title) for columns in choices]
    table = next((table for table in tables if _width(table, console) <= console.width), tables[-1])
    if _width(table, console) + len(table.columns) <= console.width:
        table.padding = (0, 1, 0, 0)
    console.print(table)


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=PIPE_WIDTH)).maximum


def print_plan(document: Row, examples: int, stream: TextIO | None = None) -> None:
    """Prints the stages of a plan, and its cost relative to the baseline, by default on stdout.

    Args:
      document: the document of `plan --json`.
      examples: M, the size of the training set.
      stream: where to print.
    """
    print_stages(document["stages"], f"The plan for {examples:,} training examples (M)", stream)
    console = make_console(stream)
    console.print()
    for name, plan in (("this plan", document), ("baseline", document["baseline"])):
        console.print(Text(f"{name:<10} {_describe_cost(plan, examples)}"))
    shares = [f"{100 * document[name]:.1f} %" for name in ("relative_samples", "relative_updates")]
    console.print(Text(f"{'relative':<10} {shares[0]} of the samples, {shares[1]} of the updates"))


def print_plans(document: Row, stream: TextIO | None = None) -> None:
    """Prints the costs of several plans beside the baseline's, by default on stdout.

    Args:
      document: the document of `plan --compare --json`.
      stream: where to print.
    """
    console = make_console(stream)
    title = f"Plans for {document['examples']:,} training examples (M), beside the baseline"
    table = make_plans_table(document["plans"], title)
    if _width(table, console) > console.width:
        table = make_plans_table(document["plans"], title, batches=False)
    console.print(table)
    console.print(Text(f"\nbaseline: {_describe_cost(document['baseline'], document['examples'])}"))


def _describe_cost(plan: Row, examples: int) -> str:
    """The cost of a plan: `3,000,000 samples planned (60 M) in 74,940 updates`."""
    samples = plan["samples"]
    return f"{samples:,} samples planned ({samples / examples:.4g} M) in {plan['updates']:,} updates"


def make_plans_table(rows: Sequence[Row], title: str, batches: bool = True) -> Table:
    """A table of plans, with their names whole.

    Args:
      rows: one for each plan, as in `plan --compare --json`.
      title: a line above the table.
      batches: whether to show the smallest and the largest batch size.
    """
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    heads = ("strategy", "stages", "batch", "samples\nplanned", "updates", "% of its\nsamples", "% of its\nupdates")
    # On a terminal that is too narrow for a name, it goes on in the next line.
    table.add_column(heads[0], vertical="bottom", overflow="fold")
    for head in heads[1:] if batches else (heads[1], *heads[3:]):
        table.add_column(head, justify="right", vertical="bottom", no_wrap=True)
    for row in rows:
        sizes = sorted({stage["batch_size"] for stage in row["stages"]})
        batch = [f"{sizes[0]}–{sizes[-1]}" if len(sizes) > 1 else str(sizes[0])] if batches else []
        shares = (f"{100 * row[name]:.1f}" for name in ("relative_samples", "relative_updates"))
        cells = (str(len(row["stages"])), *batch, f"{row['samples']:,}", f"{row['updates']:,}", *shares)
        table.add_row(Text(row["name"]), *cells)
    return table


def print_result(stages: Sequence[Row], summary: Row, stream: TextIO | None = None) -> None:
    """Prints the scores of a finished run, of each stage and at its end, by default on stdout.

    Args:
      stages: the planned stages, as in `config.json`.
      summary: the document `summary.json`, with the stages in the same order.
      stream: where to print.
    """
    scores = [{"metrics": without_losses(row_metrics(stage))} for stage in summary["stages"]]
    print_stages([{**stage, **score} for stage, score in zip(stages, scores, strict=True)], stream=stream)
    console = make_console(stream)
    best = f" (best epoch {format_percent(summary['best_top1'])})"
    first, *others = describe_scores(row_metrics(summary), summary.get("test_images")).split(", ")
    console.print(Text(", ".join([first + best, *others]), style="bold"))
    spent = format_duration(sum(summary["seconds"].values()))
    fed = sum(stage["updates"] * stage["batch_size"] for stage in stages)
    samples = describe_samples(summary["samples"], fed)
    console.print(Text(f"{samples} in {summary['updates']:,} updates, {spent}"))


def print_noise(rows: Sequence[Row], stream: TextIO | None = None) -> None:
    """Prints the noise that a run measured in training mode at each stage's end, if any, by default on stdout.

    Args:
      rows: the run's `RunRecords.noise`.
      stream: where to print.
    """
    shown = [row for row in rows if (row["side"], row["statistics"]) == ("end", "batch")]
    if not shown:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left")
    table.title = Text("gradient noise at the end of each stage")
    for name in ("set", "λM/b", "λ/b", "λ tr Σ/b", "tr Σ", "|G|²", "B_simple"):
        table.add_column(name, justify="left" if name == "set" else "right")
    for row in shown:
        numbers = ("noise_scale", "rate_over_batch", "step_noise", "trace", "squared_norm")
        b_simple = format_estimate(row["b_simple"], *row["b_simple_interval"])
        table.add_row(row["stage_name"], *(format_number(row[name]) for name in numbers), b_simple)
    make_console(stream).print(table)


_MEMORY_COLUMNS = ("arguments", "output", "donated", "temporaries", "code", "total")


def print_footprints(document: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Prints the document of `footprint.measure`, by default on stdout."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left")
    table.title = Text("Memory of one device, by batch size (MiB)")
    table.add_column("sets")
    for name in ("batch", "steps", *_MEMORY_COLUMNS):
        table.add_column(name, justify="right")
    for each in document["batches"]:
        sizes = [format_mib(each[name]) for name in _MEMORY_COLUMNS]
        table.add_row(Text(", ".join(each["stages"])), str(each["batch_size"]), str(each["steps"]), *sizes)
    console = make_console(stream)
    console.print()
    console.print(table)
    largest = max(each["total"] for each in document["batches"])
    share = 100 * largest / document["device_memory"]
    state, capacity = format_mib(document["state"]), format_mib(document["device_memory"])
    for line in (
        "total: arguments + output - donated + temporaries + code, with the test images and a copy of the state "
        f"({state} MiB), from which checkpoints are written",
        document["delivery"],
        f"the largest takes {share:.1f} % of the device's {capacity} MiB",
    ):
        console.print(Text(line))


def print_ranked(rows: Sequence[Row], stream: TextIO | None = None) -> None:
    """Prints the classes of each image, by default on stdout: a table on a terminal, else one line for each image."""
    target: TextIO = sys.stdout if stream is None else stream
    lines = [
        (row["image"], ", ".join(f"{each['name']} {format_percent(each['probability'])}" for each in row["classes"]))
        for row in rows
    ]
    if not target.isatty():
        target.writelines(f"{image}: {classes}\n" for image, classes in lines)
        return
    table = Table("image", "classes, best first", box=box.SIMPLE_HEAD, show_edge=False)
    for image, classes in lines:
        table.add_row(Text(image, overflow="fold"), Text(classes))
    make_console(target).print(table)
