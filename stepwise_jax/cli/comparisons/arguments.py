"""The arguments of `compare` beside those that it shares with other commands."""

import argparse
from collections.abc import Callable
from typing import Any


def add_protocol_options(
    command: argparse.ArgumentParser, numbers: Callable[[str], Any], names: Callable[[str], Any]
) -> None:
    """Adds what a comparison fixes beforehand; without a default, so that a design can refuse what is given too."""
    command.add_argument("--seeds", type=int, metavar="N", help="runs of each strategy (default: 5)")
    command.add_argument(
        "--strategies",
        metavar="A,B,...",
        help="strategies or rows of CONFIG, the reference first; 'rows' means all rows of CONFIG",
    )
    text = "points of top-1 within which two strategies count as equivalent (default: 1)"
    command.add_argument("--margin", type=float, metavar="POINTS", help=text)
    text = "numbers of seeds after which the results are shown (default: after the last)"
    command.add_argument("--looks", type=numbers, metavar="N,...", help=text)
    text = "what differs between the seeds: init, order, subset, sample (default: all that depends on the seed)"
    command.add_argument("--vary", type=names, metavar="A,B,...", help=text)
    text = "tune every strategy: try K learning rates on held-out training images (default: 0)"
    command.add_argument("--tune-trials", type=int, metavar="K", help=text)


def add_design_options(command: argparse.ArgumentParser, path: Callable[[str], Any]) -> None:
    """Adds the options of designs."""
    group = command.add_argument_group("a design, which fixes everything before the first run")
    text = "write the design of this comparison, say what it can show and what it costs, and train nothing"
    group.add_argument("--plan-design", type=path, metavar="FILE", help=text)
    text = "an earlier comparison, whose deviations and seconds --plan-design uses"
    group.add_argument("--pilot", type=path, metavar="DIR", help=text)
    group.add_argument("--design", type=path, metavar="FILE", help="train the comparison of a design; no CONFIG")


def add_executor_options(command: argparse.ArgumentParser) -> None:
    """Adds where the runs of a comparison or a sweep are trained, and how many at a time."""
    text = "runs at the same time (default: one for each GPU, or for each core; as many as a cluster has room for)"
    command.add_argument("--processes", type=int, default=0, metavar="N", help=text)
    group = command.add_argument_group("where the runs are trained")
    text = "local (processes of this machine, the default), slurm (a job array), ray (a cluster's workers)"
    group.add_argument("--executor", metavar="NAME", help=text)
    options = (
        ("partition", str, "NAME", "of Slurm (default: Slurm's own)"),
        ("time", int, "MINUTES", "Slurm's time limit of a job, which a run may need several times"),
        ("address", str, "HOST:PORT", "of the Ray cluster (default: the one that runs on this machine)"),
        ("gpus", int, "N", "GPUs of each run, for slurm and ray (default: 0)"),
        ("cpus", int, "N", "processor cores of each run, for slurm and ray (default: 1)"),
    )
    for name, kind, metavar, text in options:
        group.add_argument(f"--executor.{name}", dest=f"executor_{name}", type=kind, metavar=metavar, help=text)
