"""stepwise-jax: train image classifiers in stages of growing data, and see what that is worth.

python launch.py COMMAND --help tells more of each command.
"""

import sys

if __name__ == "__main__" and sys.argv[1:2] == ["train"]:
    # Before what takes time to load.
    from stepwise_jax.runtime.signals import exit_on_signals

    exit_on_signals()

import argparse
import dataclasses
import functools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.command_line import parse_fields, print_fields
from stepwise_jax.errors import InputError, StepwiseError, require
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig, ModelConfig
from stepwise_jax.experiment.config_files import load_config, load_rows
from stepwise_jax.experiment.serialization import override
from stepwise_jax.parser import make_parser
from stepwise_jax.runtime.process import (
    leave,
    look_for_garbage_seldom,
    quieten_orbax,
    start_anew_with_kept_memory,
    take_memory_in_the_main_thread,
)


def plan(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Shows the stages of a run and its cost against the baseline, without data and without running it."""
    from stepwise_jax import display
    from stepwise_jax.data import datasets
    from stepwise_jax.plans import planning

    experiment = _experiment(options, fields)
    examples = datasets.sizes(experiment.data).train
    planned = planning.make_plan(experiment.plan, experiment.optimizer, examples)
    document = planning.plan_document(planned, _baseline(experiment, examples))
    if options.memory:
        document["memory"] = _footprints(experiment, planned)
    if options.json:
        _print_json(document)
    else:
        display.print_plan(document, examples)
        if options.memory:
            from stepwise_jax.footprint_table import print_footprints

            print_footprints(document["memory"], sys.stdout)


def _footprints(experiment: ExperimentConfig, planned: Any) -> dict[str, Any]:
    from stepwise_jax.data import datasets
    from stepwise_jax.training import footprint, session

    network = _network(experiment, datasets.sizes(experiment.data).num_classes)
    return footprint.measure(session.resolve(experiment, None), planned, network)


def train(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Trains, or goes on where the workdir's run stopped; ends with a table of the stages and curves.png."""
    from stepwise_jax.data import datasets
    from stepwise_jax.display import Display, make_display, print_result
    from stepwise_jax.plans import planning
    from stepwise_jax.plans.stage import stage_document
    from stepwise_jax.runtime import compile_cache, multihost
    from stepwise_jax.training import loop
    from stepwise_jax.training.timing import parse_profile

    take_memory_in_the_main_thread()
    experiment = _experiment(options, fields)
    place = multihost.Place(options.coordinator, options.processes, options.process_id)
    if options.distributed or set(place) != {None}:
        multihost.start(place, options.heartbeat)
    sizes = datasets.sizes(experiment.data)
    network = _network(experiment, sizes.num_classes)
    planned = planning.make_plan(experiment.plan, experiment.optimizer, sizes.train)
    profile = parse_profile(options.profile, planned) if options.profile else None
    compile_cache.enable()
    variables = _initial_variables(experiment, sizes.num_classes)
    display = make_display(sys.stderr) if multihost.is_first() else Display()
    try:
        summary = loop.run(
            experiment,
            planned,
            network,
            options.workdir,
            display,
            variables=variables,
            config_path=options.config,
            profile=profile,
        )
    finally:
        display.finish()
    if not multihost.is_first():
        return
    from stepwise_jax.report.curves import write_curves

    print_result([stage_document(stage) for stage in planned], summary)
    write_curves(options.workdir)
    print(f"curves: {options.workdir / 'curves.png'}")


def evaluate(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Scores the newest checkpoint of a finished or stopped run on its whole test set."""
    from stepwise_jax.data import datasets
    from stepwise_jax.display import make_display, percent
    from stepwise_jax.training import evaluation
    from stepwise_jax.workdir.folder import read_config, recorded_experiment

    experiment, stages = recorded_experiment(read_config(options.run))
    moved = {"data.root": options.root, "data.data_dir": options.data_dir}
    experiment = override(experiment, {name: place for name, place in moved.items() if place is not None})
    network = _network(experiment, datasets.sizes(experiment.data).num_classes)
    display = make_display(sys.stderr)
    try:
        result = evaluation.evaluate(experiment, stages, network, options.run, display)
    finally:
        display.finish()
    if options.json:
        _print_json(result)
    else:
        scores = f"top-1 {percent(result['top1'])}, top-5 {percent(result['top5'])}, loss {result['loss']:.4f}"
        print(f"{scores} after {result['updates']} updates")


def compare(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Trains strategies x seeds, paired, or goes on; ends with what the differences show, and a report."""
    from stepwise_jax import grid
    from stepwise_jax.studies import comparison, comparison_folder

    grid.check(options.processes)
    wanted, experiments = _compared(options, fields)
    stages = comparison.plans(experiments, _checked_sizes(experiments))
    pairs = comparison.twins(experiments, stages)
    wanted = comparison.without_twins(wanted, pairs, named=options.strategies not in ("", "rows"))
    comparison_folder.check_finished(wanted, options.workdir, experiments, stages)
    whole = comparison_folder.open_folder(options.workdir, wanted)
    _make_ready(experiments)
    cells = comparison.make_cells(wanted, options.workdir, stages, (sys.executable, __file__), fields)
    failures = grid.run(cells, options.processes)
    comparison_folder.keep_failures(options.workdir, failures)
    _show_comparison(whole, options.workdir)
    if failures:
        raise StepwiseError(
            f"{len(failures)} of {len(cells)} runs failed: {failures[0].cell.name}: {failures[0].message}"
        )


def sweep(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Searches data size, batch size and learning rate, scored on held-out training images; tests the best once."""
    from stepwise_jax import grid
    from stepwise_jax.report.report import write_report
    from stepwise_jax.studies import local_executor, search, sweep, sweep_run
    from stepwise_jax.sweep_run import print_results

    grid.check(options.processes)
    require(options.seeds >= 1, "--seeds", options.seeds, "at least 1")
    require(options.trials >= 0, "--trials", options.trials, "at least 1")
    require(bool(options.grid) != bool(options.trials), "sweep", "--grid and --trials", "one of the two")
    require(not options.grid or options.samples is None, "--samples", options.samples, "left out beside --grid")
    if options.trials:
        search.load_optuna()
    experiment = _experiment(options, fields)
    seeds = tuple(range(experiment.seed, experiment.seed + options.seeds))
    command = (sys.executable, __file__, "train", options.config, *fields)
    setting = sweep.Sweep(options.workdir, experiment, seeds, command, _planned(options, fields))
    points = sweep.parse_grid(experiment, options.grid) if options.grid else ()
    for point in points:
        setting.cells(point)
    examples = _checked_sizes({"sweep": experiment})["sweep"]
    space = (
        None
        if points
        else search.make_space(experiment, sweep.left_for_training(experiment, examples), options.samples)
    )
    sweep.open_folder(options.workdir, sweep.describe(setting, options.config, points, space))
    _make_ready({"sweep": experiment})

    def execute(runs: Sequence[Any]) -> list[Any]:
        return grid.run(runs, options.processes)

    if space is None:
        results = sweep_run.run_grid(setting, points, execute)
    else:
        study = search.Search(space, options.workdir, experiment.seed)
        at_a_time = options.processes or local_executor.default_processes()
        results = sweep_run.run_search(setting, study, options.trials, at_a_time, execute)
    print_results(results)
    print(f"report: {write_report([options.workdir], options.workdir / 'report')}")
    if results["failures"]:
        raise StepwiseError(f"{len(results['failures'])} runs failed: {results['failures'][0]['message']}")


def _planned(options: argparse.Namespace, fields: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """From more words to the experiment with these fields too, and its plan."""
    from stepwise_jax.data import datasets
    from stepwise_jax.plans import planning

    # The files of a folder are counted once, not for every point.
    sizes = functools.cache(datasets.sizes)

    @functools.cache
    def planned(words: tuple[str, ...]) -> Any:
        experiment = _experiment(options, [*fields, *words])
        return experiment, planning.make_plan(experiment.plan, experiment.optimizer, sizes(experiment.data).train)

    return lambda words: planned(tuple(words))


def predict(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Names the classes of image files with their probabilities, by a trained network; needs no data set."""
    from stepwise_jax import display, ranking
    from stepwise_jax.inference import image_files
    from stepwise_jax.inference.predict import classify_files, rank

    if options.top < 1:
        raise InputError(f"--top {options.top}: it must be at least 1")
    paths, unmatched = image_files.find(options.images)
    if not paths:
        raise InputError(f"{', '.join(unmatched)}: there is no such image file, folder with images, or match")
    trained, shown = _trained(options.run), display.make_display(sys.stderr)
    ranked, faults = [], [f"{word} stands for no image" for word in unmatched]
    try:
        for path, probabilities, fault in classify_files(trained, paths, shown.preparing):
            if probabilities is None:
                faults.append(f"{path} cannot be read: {fault}")
            else:
                ranked.append(rank(path, probabilities, trained.signature.classes, options.top))
    finally:
        shown.finish()
    if options.json:
        _print_json(ranked)
    else:
        ranking.print_ranked(ranked)
    for fault in faults:
        print(f"warning: {fault}", file=sys.stderr)
    if faults:
        raise InputError(f"{len(faults)} of {len(ranked) + len(faults)} images could not be classified")


def export(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Writes a trained network for use without stepwise-jax: as .stablehlo with its preprocessing, or .safetensors."""
    import models
    from stepwise_jax.inference import export as exporting

    exporting.check_target(options.out)
    trained = _trained(options.run)
    if options.out.suffix == ".stablehlo":
        exporting.write_stablehlo(trained, options.out)
    else:
        described = exporting.describe(trained)
        arrays = models.to_torch(described["network"], trained.variables)
        texts = {name: each if isinstance(each, str) else json.dumps(each) for name, each in described.items()}
        models.write_safetensors(options.out, arrays, **texts)
    size, channels = trained.signature.preprocessing.image_size, trained.signature.image_shape[2]
    print(f"{options.out}: {size} x {size} x {channels} pixels to {len(trained.signature.classes)} classes")


def report(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Writes report.md, report.html and the curves of one or several runs."""
    from stepwise_jax.report.report import write_report

    print(f"report: {write_report(options.runs, options.out)}")


def prepare(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Makes a data set ready for training, once, or checks that it is."""
    from stepwise_jax.data import datasets
    from stepwise_jax.display import make_display

    if options.source and options.dataset == "digits":
        raise InputError(f"--from {options.source!r}: the digits come with scikit-learn, they are not made from a file")
    data = DataConfig(name=options.dataset, root=options.source, data_dir=options.data_dir)
    display = make_display(sys.stderr)
    try:
        if options.verify:
            datasets.verify(datasets.open_dataset(data), display.preparing)
        else:
            datasets.prepare(data, display.preparing, fetch=True)
    finally:
        display.finish()
    opened, sizes = datasets.open_dataset(data), datasets.sizes(data)
    found = f"{sizes.train} training and {sizes.test} test images, {sizes.num_classes} classes"
    print(f"{data.name} {opened.version}: {found}" + (", OK" if options.verify else ""))


def import_weights(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Checks a weight file of PyTorch's against a network, and keeps it as .safetensors for model.initial_weights."""
    import models

    out = options.out or Path(f"{options.network}.safetensors")
    if not options.file.is_file():
        raise InputError(f"weights: {options.file} is no file")
    if not out.parent.is_dir() or out.is_dir():
        raise InputError(f"--out {out}: it must be a file in a folder that exists")
    if out.exists() and out.samefile(options.file):
        raise InputError(f"--out {out} is the file that is imported: name another")
    try:
        found = models.import_weights(options.network, options.file, out)
    except ValueError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
    head = "no head" if found.num_classes is None else f"a head of {found.num_classes} classes"
    print(f"{out}: {options.network}, {found.parameters:,} parameters, {head}")


def bench(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Measures this machine: training steps of networks, or with --data how many images a second reach the device."""
    from stepwise_jax import bench

    take_memory_in_the_main_thread()
    measured = bench.run(vars(options), _network)
    if options.json:
        _print_json(measured)
    else:
        bench.show(measured)
    bench.check(measured)


WITH_FIELDS = ("plan", "train", "compare", "sweep")
"""Commands that take a CONFIG and `--FIELD VALUE`."""

OUT_OF_MEMORY = (
    "the device has no memory left: a smaller plan.batch_size, evaluation.batch_size or data.image_size, or "
    "--data.delivery streamed, needs less; what is saved is kept"
)

Command = Callable[[argparse.Namespace, Sequence[str]], None]


def _experiment(options: argparse.Namespace, fields: Sequence[str]) -> ExperimentConfig:
    return parse_fields(load_config(options.config), fields, f"launch.py {options.command} {options.config}")


def _compared(options: argparse.Namespace, fields: Sequence[str]) -> tuple[Any, dict[str, ExperimentConfig]]:
    """The comparison that the command line asks for, and each strategy's experiment."""
    from stepwise_jax.studies import comparison

    require(options.seeds >= 1, "--seeds", options.seeds, "at least 1")
    given = load_config(options.config)
    experiment = parse_fields(given, fields, f"launch.py {options.command} {options.config}")
    names = [name for name in options.strategies.split(",") if name]
    strategies = comparison.choose(names, options.config, experiment, load_rows(options.config))
    comparison.refuse_unheeded(given, experiment, strategies)
    seeds = tuple(range(experiment.seed, experiment.seed + options.seeds))
    experiments = {
        each.name: parse_fields(load_config(each.config), [*fields, *each.words()], f"strategy {each.name}")
        for each in strategies
    }
    return comparison.Comparison(options.config, experiment, strategies, seeds), experiments


def _checked_sizes(experiments: Mapping[str, ExperimentConfig]) -> dict[str, int]:
    """M of each experiment, whose networks are checked."""
    from stepwise_jax.data import datasets

    sizes = {name: datasets.sizes(each.data) for name, each in experiments.items()}
    for name, each in {(each.model, each.data.image_size): (name, each) for name, each in experiments.items()}.values():
        _network(each, sizes[name].num_classes)
    for weights in {each.model.initial_weights for each in experiments.values()} - {None}:
        require(Path(str(weights)).is_file(), "model.initial_weights", weights, "a file of weights: there is none")
    return {name: each.train for name, each in sizes.items()}


def _make_ready(experiments: Mapping[str, ExperimentConfig]) -> None:
    """Prepares the data of experiments, once each."""
    from stepwise_jax.data import datasets
    from stepwise_jax.display import make_display

    display = make_display(sys.stderr)
    try:
        for data in dict.fromkeys(each.data for each in experiments.values()):
            datasets.prepare(data, display.preparing)
    finally:
        display.finish()


def _show_comparison(compared: Any, folder: Path) -> None:
    from stepwise_jax.comparison_table import print_comparison
    from stepwise_jax.report.report import write_report
    from stepwise_jax.studies import comparison_folder

    runs = comparison_folder.finished_runs(compared, folder)
    print_comparison(compared, runs, comparison_folder.paired(compared, runs))
    if any(runs.values()):
        print(f"report: {write_report([folder], folder / 'report')}")


def _baseline(experiment: ExperimentConfig, examples: int) -> Any:
    from stepwise_jax.plans import planning

    plan = dataclasses.replace(experiment.plan, strategy="baseline", fractions=(1.0,), batch_multipliers=(1.0,))
    return planning.make_plan(plan, experiment.optimizer, examples)


def _network(experiment: ExperimentConfig, num_classes: int) -> Any:
    import jax

    import models

    config = experiment.model
    try:
        network = models.build(config.name, num_classes=num_classes, dtype=experiment.dtype, **_shape(config))
        size = experiment.data.image_size
        network.check(jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
        return network
    except ValueError as error:
        raise InputError(f"model: {error}") from error


def _trained(folder: Path) -> Any:
    """The trained network of a run's folder."""
    from stepwise_jax.inference import trained
    from stepwise_jax.runtime import compile_cache

    compile_cache.enable()
    experiment, signature = trained.read_recipe(folder)
    return trained.open_trained(folder, _network(experiment, len(signature.classes)))


def _initial_variables(experiment: ExperimentConfig, num_classes: int) -> Any | None:
    """What `model.initial_weights` holds for the network, or None where it starts from random weights."""
    import models

    config = experiment.model
    if config.initial_weights is None:
        return None
    try:
        return models.load_weights(
            config.name,
            config.initial_weights,
            num_classes=num_classes,
            keep_head=config.keep_head,
            seed=experiment.seed,
            **_shape(config),
        )
    except ValueError as error:
        raise InputError(f"model.initial_weights: {str(error).removeprefix('weights: ')}") from error


def _shape(config: ModelConfig) -> dict[str, Any]:
    return {"small_images": config.small_images, "width": config.width, "blocks": config.blocks}


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


COMMANDS = (plan, train, evaluate, predict, compare, sweep, report, export, prepare, import_weights, bench)


def _parser() -> argparse.ArgumentParser:
    return make_parser(str(__doc__), {command.__name__: command for command in COMMANDS})


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status: what went wrong is told in one sentence on stderr."""
    try:
        if arguments and arguments[0] in WITH_FIELDS and {"-h", "--help"} & set(arguments):
            return _help(arguments)
        options, rest = _parser().parse_known_args(arguments)
        if rest and options.command not in WITH_FIELDS:
            raise InputError(
                f"{rest[0]} is no option of {options.command}: launch.py {options.command} --help lists them"
            )
        options.function(options, rest)
        sys.stdout.flush()
    except StepwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        # Who read our output is gone; nothing more can be told, not even when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except RuntimeError as error:
        # What JAX raises where a device has no memory left; anything else is a defect, and is told in full.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"error: {OUT_OF_MEMORY}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted before there was anything to save", file=sys.stderr)
        return 130
    return 0


def _help(arguments: Sequence[str]) -> int:
    """The help of a command whose fields come from a CONFIG: those of the named one, or of the defaults."""
    config = next((word for word in arguments[1:] if not word.startswith("-")), None)
    experiment = load_config(config) if config else ExperimentConfig()
    parser = _parser()
    try:
        parser.parse_args([arguments[0], "--help"])
    except SystemExit:
        print(f"\nFields of {config or 'an experiment, and their defaults'}:\n")
        print_fields(experiment, f"launch.py {arguments[0]} {config or 'CONFIG'}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    quieten_orbax()
    look_for_garbage_seldom()
    if sys.argv[1:2] in (["train"], ["bench"]):
        start_anew_with_kept_memory()
    leave(main(sys.argv[1:]))
