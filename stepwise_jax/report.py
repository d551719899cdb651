"""Runs as a page to read: tables and curves from their records, as Markdown and as one self-contained HTML file.

A page is a tuple of blocks, made once and written in both forms; the same records give the same bytes.
"""

import base64
import html
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.curves import AXES, DARK, LIGHT, Axis, Theme, draw_curves, picture
from stepwise_jax.errors import InputError
from stepwise_jax.records import SECONDS, Row, Run, duration, percent, read_runs


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's own."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of plain text; all columns but the first are numbers unless `prose`."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    prose: bool = False


@dataclass(frozen=True)
class Curves:
    """The picture of all the runs."""

    description: str


Block = Heading | Paragraph | Table | Curves

_TIME = {
    "train": "training",
    "input_wait": "waiting for input",
    "compile": "compiling",
    "evaluate": "evaluating",
    "checkpoint": "writing checkpoints",
}
_AXIS_WORDS: dict[Axis, str] = {"epoch": "by epoch", "samples": "by samples seen"}


def write_report(workdirs: Sequence[Path], out: Path) -> Path:
    """Writes `report.md`, `report.html`, `curves.png` and `curves.svg` about some runs, finished or not.

    Args:
      workdirs: the runs' folders; several are laid over each other in the curves.
      out: the folder to write to, made where it is missing.

    Returns:
      The path of `report.html`.

    Raises:
      InputError: for a folder that is no run or has no finished epoch, or an `out` that cannot be written.
    """
    runs = read_runs(workdirs)
    if not runs:
        raise InputError("a report needs the folder of at least one run")
    blocks = page(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        draw_curves(workdirs, out / "curves")
        (out / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
        (out / "report.html").write_text(to_html(blocks, runs), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
    return out / "report.html"


def page(runs: Sequence[Run]) -> tuple[Block, ...]:
    """What there is to say about some runs, in reading order."""
    title = f"Step-wise training: {', '.join(run.name for run in runs)}"
    opening: list[Block] = [Heading(title, level=1), *(Paragraph(f"{verdict(run)} {setting(run)}") for run in runs)]
    if len(runs) > 1:
        opening += [Heading("The runs side by side"), runs_table(runs), *_differences(runs)]
    opening += [Heading("Curves"), Curves(_describe_curves(runs))]
    return (*opening, *itertools.chain.from_iterable(_run_blocks(run, alone=len(runs) == 1) for run in runs))


def _run_blocks(run: Run, alone: bool) -> list[Block]:
    level = 2 if alone else 3
    blocks: list[Block] = [] if alone else [Heading(run.name)]
    blocks += [Heading("Stages", level), stages_table(run)]
    blocks += [Heading("Where the time went", level), Paragraph(_pace(run)), time_table(run)]
    return [*blocks, Heading("What was run", level), identity_table(run)]


def verdict(run: Run) -> str:
    """One sentence: what the run reached, at what cost."""
    last = run.records.epochs[-1]
    top1, top5 = _reached(run.records.epochs)
    cost = f"{last['examples_seen']:,} samples in {last['updates']:,} updates"
    done, planned = len(run.records.epochs), sum(stage["epochs"] for stage in run.stages)
    if run.summary is None:
        return (
            f"{run.name} is unfinished: {done} of {planned} epochs are done, in stage {last['stage_name']}; "
            f"top-1 is {percent(top1)} and top-5 {percent(top5)} so far, after {cost}."
        )
    best = percent(run.summary["best_top1"])
    stages = f"{len(run.stages)} {'stage' if len(run.stages) == 1 else 'stages'}"
    return (
        f"{run.name} reached {percent(top1)} top-1 and {percent(top5)} top-5 on the test set at the end of {stages} "
        f"and {planned} epochs ({cost}); its best epoch had {best} top-1."
    )


def setting(run: Run) -> str:
    """One sentence: which network, on which data, where."""
    fields = _flat(run.config["experiment"])
    size = fields["data.image_size"]
    return (
        f"It is {fields['model.name']} on {fields['data.name']} at {size}×{size} pixels in {fields['dtype']}, "
        f"seed {fields['seed']}, on {_text(run.config.get('device'))}."
    )


def _reached(epochs: Sequence[Row]) -> tuple[float | None, float | None]:
    """Top-1 and top-5 of the last of these epochs that was evaluated."""
    scores = [(row["top1"], row["top5"]) for row in epochs if row["top1"] is not None]
    return scores[-1] if scores else (None, None)


def runs_table(runs: Sequence[Run]) -> Table:
    """The runs side by side: scores and cost."""
    header = ("run", "top-1", "top-5", "best top-1", "epochs", "samples seen", "updates", "time (h:mm:ss)")
    return Table(header, tuple(_run_row(run) for run in runs))


def _run_row(run: Run) -> tuple[str, ...]:
    epochs, last = run.records.epochs, run.records.epochs[-1]
    scores = (*_reached(epochs), last["best_top1"])
    cost = (f"{len(epochs)}", f"{last['examples_seen']:,}", f"{last['updates']:,}")
    name = run.name if run.summary else f"{run.name} (unfinished)"
    return (name, *map(percent, scores), *cost, duration(sum(_seconds(run).values())))


def _differences(runs: Sequence[Run]) -> list[Block]:
    fields = [_flat(run.config["experiment"]) for run in runs]
    names = sorted({name for each in fields for name in each})
    rows = [(name, *(_text(each.get(name)) for each in fields)) for name in names]
    differing = tuple(row for row in rows if len(set(row[1:])) > 1)
    if not differing:
        return [Paragraph("All fields of their experiments are the same.")]
    return [Paragraph("They differ in:"), Table(("field", *(run.name for run in runs)), differing, prose=True)]


def stages_table(run: Run) -> Table:
    """The planned stages, and what the test set scored at the end of each."""
    header = ("set", "of the data", "examples", "batch size", "learning rate", "drops after epoch", "epochs")
    header += ("updates", "samples", "noise scale (Eq. 10)", "top-1", "top-5")
    return Table(header, tuple(_stage_row(run, place, stage) for place, stage in enumerate(run.stages, start=1)))


def _stage_row(run: Run, place: int, stage: Row) -> tuple[str, ...]:
    epochs = [row for row in run.records.epochs if row["stage"] == place]
    examples, size, rate = stage["examples"], stage["batch_size"], stage["learning_rate"]
    reached = map(percent, _reached(epochs)) if len(epochs) == stage["epochs"] else ("–", "–")
    return (
        str(stage["name"]),
        f"{100 * stage['fraction']:.4g} %",
        f"{examples:,}",
        f"{size:,}",
        f"{rate:.3g}",
        ", ".join(map(str, stage["milestones"])) or "–",
        f"{stage['epochs']}",
        f"{stage['epochs'] * (examples // size):,}",
        f"{stage['epochs'] * examples:,}",
        f"{rate * examples / size:.3g}",
        *reached,
    )


def _seconds(run: Run) -> dict[str, float]:
    """Seconds by kind, of the whole run where it is finished, else of its epochs."""
    if run.summary is not None:
        return {kind: run.summary["seconds"].get(kind, 0.0) for kind in SECONDS}
    return {kind: sum(row["seconds"].get(kind, 0.0) for row in run.records.epochs) for kind in SECONDS}


def time_table(run: Run) -> Table:
    """Seconds by kind, and their share of the whole."""
    seconds = _seconds(run)
    whole = sum(seconds.values())
    rows = [
        (_TIME[kind], f"{spent:,.1f}", f"{100 * spent / whole:.1f} %" if whole else "–")
        for kind, spent in seconds.items()
    ]
    return Table(("kind", "seconds", "share"), (*rows, ("all", f"{whole:,.1f}", "100.0 %")))


def _pace(run: Run) -> str:
    seconds = _seconds(run)
    steps = seconds["train"] + seconds["input_wait"]
    if steps == 0:
        return "No time was recorded."
    examples = run.records.epochs[-1]["examples_seen"]
    wait = seconds["input_wait"] / steps
    return f"{examples / steps:,.0f} images/s while training; {percent(wait)} of that time was spent waiting for input."


def identity_table(run: Run) -> Table:
    """Everything that decides what was computed, and what it ran on."""
    config = run.config
    subsets = "; ".join(f"{row['name']}: {row['split']}, SHA-256 {row['sha256'][:12]}" for row in run.records.stages)
    versions = config.get("versions", {})
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)
    rows = [
        ("device", _text(config.get("device"))),
        ("versions", libraries),
        ("configuration", _text(config.get("config"))),
    ]
    rows += [("subsets", subsets), *((name, _text(value)) for name, value in _flat(config["experiment"]).items())]
    return Table(("field", "value"), tuple(rows), prose=True)


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _text(value: Any) -> str:
    """A field's value as people read it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "–" if value is None else str(value)


def _describe_curves(runs: Sequence[Run]) -> str:
    names = ", ".join(run.name for run in runs)
    stages = "; ".join(dict.fromkeys(" → ".join(str(stage["name"]) for stage in run.stages) for run in runs))
    return f"Test accuracy, loss, learning rate, batch size and noise scale of {names}, in stages {stages}"


def to_markdown(blocks: Sequence[Block]) -> str:
    """The page as Markdown, next to which `curves.png` lies."""
    return "\n\n".join(_block_markdown(block) for block in blocks) + "\n"


def _block_markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Curves(description):
            return f"![{_plain(description)}](curves.png)"
        case Table(header, rows, prose):
            rule = ("---", *("---" if prose else "---:" for _ in header[1:]))
            cells = [[_plain(cell) for cell in row] for row in (header, *rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))


def _plain(text: str) -> str:
    """Text whose characters mean nothing to Markdown."""
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", " ".join(text.split()))


def to_html(blocks: Sequence[Block], runs: Sequence[Run]) -> str:
    """The page as one HTML file that needs no other."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(_block_html(block, runs) for block in blocks)
    # From the end backwards: what has been put in is not searched.
    return _HTML.replace("BODY", body, 1).replace("TITLE", html.escape(title), 1)


def _block_html(block: Block, runs: Sequence[Run]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Curves(description):
            return f'<div class="pictures">{"".join(_figure_html(description, axis, runs) for axis in AXES)}</div>'
        case Table():
            return _table_html(block)


def _table_html(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in table.rows
    )
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>"
    # A table that scrolls must be reachable by keyboard.
    return (
        f'<div class="table" tabindex="0"><table class="{"prose" if table.prose else "numbers"}">{inner}</table></div>'
    )


def _figure_html(description: str, axis: Axis, runs: Sequence[Run]) -> str:
    alternative = html.escape(f"{description}, {_AXIS_WORDS[axis]}")
    return (
        "<figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_inline(runs, axis, DARK)}">'
        f'<img alt="{alternative}" src="{_inline(runs, axis, LIGHT)}"></picture></figure>'
    )


def _inline(runs: Sequence[Run], axis: Axis, theme: Theme) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture(runs, "svg", (axis,), theme)).decode()


_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>TITLE</title>
<style>
:root { --ink: #24292f; --paper: #ffffff; --line: #d0d7de; --band: #f3f5f8; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #15191f; --line: #3d444d; --band: #1c222a; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 84rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; padding-bottom: .5rem;
  border-bottom: 3px solid var(--accent); }
h2 { font-size: 1.25rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; border-bottom-width: 2px; }
tbody th { font-weight: 600; }
tbody tr:nth-child(even) { background: var(--band); }
.numbers th + th, .numbers td { text-align: right; }
.numbers td, .numbers tbody th { white-space: nowrap; }
.prose td { min-width: 7rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; }
</style>
</head>
<body>
<main>
BODY
</main>
</body>
</html>
"""
