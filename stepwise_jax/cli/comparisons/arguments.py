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
