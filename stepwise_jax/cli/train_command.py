"""The command `train`: one run, new or resumed, with its displays, loggers and mirror."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stepwise_jax.cli import networks
from stepwise_jax.cli.parsing.overrides import load_experiment
from stepwise_jax.errors import StepwiseError, require
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.runtime.process import compute_in_main_thread

_Request = TypeVar("_Request")


def train(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Trains a run, or resumes the one in the workdir; ends with a table of the stages and curves.png."""
    from stepwise_jax.cli.display import Display, make_display
    from stepwise_jax.runtime import compile_cache, multihost
    from stepwise_jax.training import loop

    compute_in_main_thread()
    experiment, loggers = _join_processes(options, lambda: _read_request(options, fields))
    compile_cache.enable()
    mirrors = multihost.on_all_processes(lambda: _open_mirror(options))
    # A host may lack the data or the weights: no process waits for it.
    run = multihost.on_all_processes(lambda: _prepare_run(experiment, options.profile))
    with make_display(sys.stderr, options.verbose) if multihost.is_first_process() else Display() as display:
        observers = [display, *loggers, *mirrors]
        summary = loop.run(experiment, folder=options.workdir, observers=observers, config_path=options.config, **run)
    if multihost.is_first_process():
        _print_run_result(run["stages"], summary, options.workdir)


def _read_request(options: argparse.Namespace, fields: Sequence[str]) -> tuple[ExperimentConfig, list[Any]]:
    """The experiment and the loggers that the command asks for."""
    from stepwise_jax.workdir.loggers import make_loggers

    experiment = load_experiment(options.config, fields, options.command)
    require(bool(options.log) or not options.log_group, "--log-group", str(options.log_group), "given with --log")
    return experiment, list(make_loggers(options.log, options.workdir, options.log_group))


def _open_mirror(options: argparse.Namespace) -> list[Any]:
    """The observer that copies the run to `--mirror`, after a run that is there and not here has been downloaded."""
    from stepwise_jax.cli.display import make_display
    from stepwise_jax.runtime import multihost
    from stepwise_jax.workdir.mirror import Mirror, open_store, restore

    if not options.mirror or not multihost.is_first_process():
        return []
    store = open_store(options.mirror)
    with make_display(sys.stderr) as display:
        restore(options.workdir, store, display.show_progress)
    return [Mirror(options.workdir, store)]


def _prepare_run(experiment: ExperimentConfig, profile: str | None) -> dict[str, Any]:
    """The stages, the network, its initial weights and the epoch to trace, as `loop.run` takes them."""
    from stepwise_jax.data import datasets
    from stepwise_jax.functional.networks import build_network
    from stepwise_jax.plans.planning import make_plan
    from stepwise_jax.training.measurements.timing import parse_profiled_epoch

    sizes = datasets.sizes(experiment.data)
    network = build_network(experiment, sizes.num_classes)
    stages = make_plan(experiment.plan, sizes.train, experiment.optimizer)
    return {
        "stages": stages,
        "network": network,
        "profile": parse_profiled_epoch(profile, stages) if profile else None,
        "variables": networks.initial_variables(experiment, sizes.num_classes),
    }


def _join_processes(options: argparse.Namespace, read: Callable[[], _Request]) -> _Request:
    """Connects to the other processes of the run, if any; returns what `read` does, or raises its error on all."""
    from stepwise_jax.runtime import multihost

    config = multihost.DistributedConfig(options.coordinator, options.processes, options.process_id)
    if not options.distributed and set(config) == {None}:
        return read()
    try:
        request, failure = read(), None
    except StepwiseError as error:
        request, failure = None, error
    multihost.initialize(config, options.heartbeat, failure)

    def answer() -> Any:
        if failure:
            raise failure
        return request

    return multihost.on_all_processes(answer)


def _print_run_result(stages: Any, summary: dict[str, Any], workdir: Path) -> None:
    from stepwise_jax.cli.tables import print_noise, print_result
    from stepwise_jax.plans.stage import stage_to_dict
    from stepwise_jax.report.curves import write_curves
    from stepwise_jax.workdir.record_file import read_records

    print_result([stage_to_dict(stage) for stage in stages], summary)
    print_noise(read_records(workdir).noise)
    write_curves(workdir)
    print(f"curves: {workdir / 'curves.png'}")
