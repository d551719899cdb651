"""The entry point: one command, its exit status, and one sentence for whatever went wrong."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from stepwise_jax.cli import commands, study_commands
from stepwise_jax.cli.comparisons.command import compare
from stepwise_jax.cli.parsing.arguments import make_parser
from stepwise_jax.cli.parsing.overrides import load_config, print_fields
from stepwise_jax.cli.parsing.parser import check_commas
from stepwise_jax.cli.train_command import train
from stepwise_jax.data.source import scan_once
from stepwise_jax.errors import InputError, InterruptedRunError, StepwiseError, is_out_of_memory
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.formatting import program_name
from stepwise_jax.runtime.process import (
    collect_garbage_rarely,
    describe_failed_start,
    exit_process,
    raise_descriptor_limit,
    restart_with_malloc_settings,
    silence_orbax,
)
from stepwise_jax.runtime.signals import stop_with_parent
from stepwise_jax.runtime.streams import discard_output, raise_lost_output

Command = Callable[[argparse.Namespace, Sequence[str]], None]

COMMANDS: tuple[Command, ...] = (
    commands.plan,
    train,
    commands.evaluate,
    commands.predict,
    compare,
    study_commands.sweep,
    commands.report,
    commands.export,
    commands.prepare,
    commands.import_weights,
    commands.bench,
)

WITH_FIELDS = ("plan", "train", "compare", "sweep")
"""Commands that take a CONFIG and `--FIELD VALUE`."""

OUT_OF_MEMORY = (
    "the device has no memory left: a smaller plan.batch_size, evaluation.batch_size or data.image_size, or "
    "--data.delivery streamed, needs less; what is saved is kept"
)


def run() -> NoReturn:
    """Runs the command of this process's arguments, and ends the process."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    silence_orbax()
    collect_garbage_rarely()
    raise_descriptor_limit()
    if sys.argv[1:2] in (["train"], ["bench"]):
        restart_with_malloc_settings()
    stop_with_parent()
    exit_process(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status; what went wrong is one sentence on stderr."""
    try:
        _execute(arguments)
        raise_lost_output()
    except InterruptedRunError as error:
        print(error, file=sys.stderr)
        return error.status
    except StepwiseError as error:
        return _fail(str(error), error.status)
    except BrokenPipeError:
        # Whoever read our output is gone.
        discard_output()
        return 141
    except (RuntimeError, ValueError, AssertionError) as error:
        if is_out_of_memory(error):
            return _fail(OUT_OF_MEMORY, 1)
        if reason := describe_failed_start(error):
            return _fail(reason, 2)
        raise
    except OSError as error:
        return _fail(f"{error.filename or 'the output'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        print("interrupted; what was saved before stays", file=sys.stderr)
        return 130
    return 0


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def _execute(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in WITH_FIELDS and {"-h", "--help"} & set(arguments):
        _print_help(arguments)
        return
    check_commas(arguments)
    options, rest = _parser().parse_known_args(_insert_config(arguments))
    if rest and options.command not in WITH_FIELDS:
        help_command = f"{program_name()} {options.command} --help"
        raise InputError(f"{rest[0]} is no option of {options.command}: {help_command} lists them")
    with scan_once():
        options.function(options, rest)


def _insert_config(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments, with an empty CONFIG for `compare --design FILE`: the design names it."""
    designed = any(word.partition("=")[0] == "--design" for word in arguments)
    return [arguments[0], "", *arguments[1:]] if designed and arguments[0] == "compare" else arguments


def _parser() -> argparse.ArgumentParser:
    return make_parser({command.__name__: command for command in COMMANDS})


def _print_help(arguments: Sequence[str]) -> None:
    """The help of a command whose fields come from a CONFIG: those of the named one, or of the defaults."""
    config = next((word for word in arguments[1:] if not word.startswith("-")), None)
    experiment = load_config(config) if config else ExperimentConfig()
    parser = _parser()
    try:
        parser.parse_args([arguments[0], "--help"])
    except SystemExit:
        print(f"\nFields of {config or 'an experiment, and their defaults'}:\n")
        print_fields(experiment, f"{program_name()} {arguments[0]} {config or 'CONFIG'}")
