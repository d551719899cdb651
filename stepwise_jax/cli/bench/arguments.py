"""The options of `bench`."""

import argparse
import functools
from typing import Any


def add_bench_options(command: argparse.ArgumentParser) -> None:
    """The networks or the pipeline to measure, and how."""
    command.add_argument("networks", nargs="*", metavar="NETWORK", help="networks whose training steps to measure")
    command.add_argument("--data", action="store_true", help="measure the input pipeline instead")
    _add_option(command, "--image-size", "size of the network's input (default: 224)", type=int)
    _add_step_options(command.add_argument_group("for NETWORK..."))
    _add_data_options(command.add_argument_group("for --data"))


def _add_option(parser: Any, name: str, text: str, **settings: Any) -> None:
    # Without defaults, the namespace holds only the given options: `bench` rejects those of the other measurement.
    parser.add_argument(name, default=argparse.SUPPRESS, help=text, **settings)


def _add_step_options(group: Any) -> None:
    add = functools.partial(_add_option, group)
    add("--batch-sizes", "images in a step (default: 24,48,72,96)", metavar="N,N,...")
    add("--precisions", "number formats of the networks (default: float32,bfloat16)", metavar="NAME,...")
    add("--small-images", "use the stem for images of about 32 pixels", action="store_true")
    add("--width", "channels of the first network stage (default: the network's own)", type=int, metavar="N")
    add("--blocks", "blocks of the network stages, up to four (default: the network's own)", metavar="A,B,C,D")
    add("--classes", "size of the output (default: 1000)", type=int, metavar="N")
    add("--steps-per-call", "steps in one compiled call (default: as in a run)", type=int, metavar="N")
    add("--seconds", "measuring time of each combination (default: 10)", type=float, metavar="S")


def _add_data_options(group: Any) -> None:
    add = functools.partial(_add_option, group)
    add("--images", "number of JPEGs to generate and load (default: 2048)", type=int)
    add("--side", "their height and width (default: 512)", type=int)
    add("--batch-size", "images in a batch (default: 96)", type=int)
    add("--epochs", "passes with each loader (default: 2)", type=int)
    add("--streamed-only", "skip the loader that holds all images in memory", action="store_true")
