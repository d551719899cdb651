"""Writes the design of a comparison, and prints what it can show and what it costs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich import box
from rich.table import Table

from stepwise_jax.cli.comparisons.request import Request
from stepwise_jax.cli.comparisons.tuned import Stages, make_trials
from stepwise_jax.cli.console import make_console, print_prose
from stepwise_jax.formatting import program_name
from stepwise_jax.studies.designs import outlook
from stepwise_jax.studies.designs.document import make_design, write_design


def plan_design(options: argparse.Namespace, asked: Request, stages: Stages) -> None:
    """Write the design of a requested comparison, and print its power and its cost.

    Raises:
      InputError: if the pilot cannot be used, or the file exists.
    """
    pilot = outlook.read_pilot(options.pilot, asked.comparison) if options.pilot else None
    trials = make_trials(asked, Path("tuning"), {}, asked.fields)
    tuning = {name: sum(job.samples for job in jobs.values()) for name, jobs in trials.items()}
    costs = outlook.plan_costs(asked.comparison, stages, tuning)
    design = make_design(asked.comparison, asked.experiments, asked.fields)
    write_design(options.plan_design, design)
    rows = outlook.outlook_rows(asked.comparison, costs, pilot)
    _print(outlook.outlook_header(asked.comparison), rows, outlook.describe_outlook(asked.comparison, pilot))
    print(f"design {design.sha256[:12]}: {options.plan_design}")
    print(f"train it: {program_name()} compare --design {options.plan_design} --workdir DIR")


def _print(header: Sequence[str], rows: Sequence[Sequence[str]], text: str, stream: TextIO | None = None) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for index, name in enumerate(header):
        # Titles have several lines on a narrow terminal; names of strategies stay whole.
        table.add_column(name, justify="right" if index else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    console = make_console(stream)
    console.print(table)
    print_prose(console, text)
