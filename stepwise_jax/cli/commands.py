"""The commands for one run, one data set or this machine. Each takes its parsed options and `--FIELD VALUE` words."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.cli import networks
from stepwise_jax.cli.parsing.overrides import load_experiment
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig, ModelConfig
from stepwise_jax.experiment.serialization import model_name, override_fields
from stepwise_jax.formatting import describe_progress, describe_scores
from stepwise_jax.runtime.files import check_output
from stepwise_jax.runtime.process import compute_in_main_thread


def plan(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Shows the stages of a run, and its cost relative to the baseline, without data and without training."""
    from stepwise_jax.cli import plan_comparison, tables
    from stepwise_jax.data import datasets
    from stepwise_jax.functional.checks import check_experiment
    from stepwise_jax.plans.planning import make_plan, plan_to_dict

    plan_comparison.check_options(options)
    experiment = load_experiment(options.config, fields, options.command)
    sizes = datasets.sizes(experiment.data)
    baseline = plan_comparison.plan_baseline(experiment, sizes.train)
    if options.compare is not None:
        document = plan_comparison.compare_plans(options, fields, baseline, sizes.train)
        _print_json(document) if options.json else tables.print_plans(document)
        return
    stages = make_plan(experiment.plan, sizes.train, experiment.optimizer)
    check_experiment(experiment, stages, sizes.num_classes)
    document = plan_to_dict(stages, baseline)
    if options.memory:
        document["memory"] = _memory(experiment, stages)
    if options.out:
        plan_comparison.write_picture(options.out, {"this plan": stages}, baseline, sizes.train)
    if options.json:
        _print_json(document)
        return
    tables.print_plan(document, sizes.train)
    if options.memory:
        tables.print_footprints(document["memory"])


def _memory(experiment: ExperimentConfig, stages: Any) -> dict[str, Any]:
    from stepwise_jax.cli.display import make_display
    from stepwise_jax.data import datasets
    from stepwise_jax.functional.networks import build_network
    from stepwise_jax.training import session
    from stepwise_jax.training.programs import footprint

    network = build_network(experiment, datasets.sizes(experiment.data).num_classes)
    with make_display(sys.stderr) as display:
        resolved = session.resolve_steps_per_call(experiment, None)
        return footprint.measure(resolved, stages, network, display.show_progress)


def evaluate(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Evaluates the newest checkpoint of a finished or stopped run on its whole test set."""
    from stepwise_jax.cli.display import make_display
    from stepwise_jax.data import datasets
    from stepwise_jax.functional.networks import build_network
    from stepwise_jax.training.measurements import evaluation
    from stepwise_jax.workdir.folder import parse_config, read_config

    experiment, stages = parse_config(read_config(options.run))
    if experiment.data.name != "image_folder":
        # Version 0.1 recorded a folder that such data sets do not use.
        experiment = override_fields(experiment, {"data.root": None})
    moved = {"data.root": options.root, "data.data_dir": options.data_dir}
    experiment = override_fields(experiment, {name: place for name, place in moved.items() if place is not None})
    network = build_network(experiment, datasets.sizes(experiment.data).num_classes)
    with make_display(sys.stderr) as display:
        result = evaluation.evaluate(experiment, stages, network, options.run, observers=[display])
    if options.json:
        _print_json(result)
        return
    progress = describe_progress(result["updates"], result["planned_updates"], result["damaged_checkpoints"])
    scores = describe_scores(result["metrics"], result["test_images"])
    print(f"{scores}, loss {result['metrics']['loss']:.4f} after {progress}")


def predict(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Predicts the classes of image files with a trained network; needs no data set."""
    from stepwise_jax.cli.tables import print_ranked
    from stepwise_jax.inference import image_files

    if options.top < 1:
        raise InputError(f"--top {options.top}: it must be at least 1")
    paths, unmatched = image_files.find_images(options.images)
    if not paths:
        raise InputError(f"{', '.join(unmatched)}: there is no such image file, folder with images, or match")
    ranked, faults = _classify(options, paths)
    faults = [*(f"{pattern} matches no image" for pattern in unmatched), *faults]
    if options.json:
        _print_json(ranked)
    else:
        print_ranked(ranked)
    for fault in faults:
        print(f"warning: {fault}", file=sys.stderr)
    if faults:
        raise InputError(f"{len(faults)} of {len(ranked) + len(faults)} images could not be classified")


def _classify(options: argparse.Namespace, paths: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The ranked classes of each image, and a message for each file that cannot be read."""
    from stepwise_jax.cli.display import make_display
    from stepwise_jax.inference.predict import classify_files, rank_classes

    trained = networks.load_trained(options.run, options.weights)
    if not trained.is_final:
        print(f"warning: {options.run}: the network is that after {trained.progress}", file=sys.stderr)
    ranked, faults = [], []
    with make_display(sys.stderr) as display:
        for path, probabilities, fault in classify_files(trained, paths, display.show_progress):
            if probabilities is None:
                faults.append(f"{path} cannot be read: {fault}")
            else:
                ranked.append(rank_classes(path, probabilities, trained.signature.classes, options.top))
    return ranked, faults


def export(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Exports a trained network for use without stepwise-jax: as .stablehlo with preprocessing, or .safetensors."""
    from stepwise_jax.inference.export import check_export_path, write_stablehlo

    check_export_path(options.out)
    trained = networks.load_trained(options.run, options.weights)
    if options.out.suffix == ".stablehlo":
        write_stablehlo(trained, options.out)
    elif callable(trained.experiment.model.name):
        name = model_name(trained.experiment)
        raise InputError(f"--out {options.out}: {name} has no names in PyTorch: name a .stablehlo file")
    else:
        _write_safetensors(trained, options.out)
    size, channels = trained.signature.preprocessing.image_size, trained.signature.image_shape[2]
    classes = len(trained.signature.classes)
    state = trained.progress + (", averaged weights" if trained.weights == "ema" else "")
    print(f"{options.out}: {size} x {size} x {channels} pixels to {classes} classes, after {state}")


def _write_safetensors(trained: Any, path: Path) -> None:
    from stepwise_jax.functional.networks import load_models
    from stepwise_jax.inference.export import describe_network

    models, description = load_models(), describe_network(trained)
    arrays = models.to_torch(description["network"], trained.variables)
    texts = {name: each if isinstance(each, str) else json.dumps(each) for name, each in description.items()}
    models.write_safetensors(path, arrays, **texts)


def report(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Writes report.md, report.html and the curves of one or more runs."""
    from stepwise_jax.report.report import write_report

    print(f"report: {write_report(options.runs, options.out)}")


def prepare(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Prepares a data set for training, once, or verifies a prepared one."""
    from stepwise_jax.cli.display import make_display
    from stepwise_jax.data import datasets

    _check_source(options)
    data = DataConfig(
        name=options.dataset,
        root=options.source,
        data_dir=options.data_dir,
        unreadable=options.unreadable,
        duplicates=options.duplicates,
    )
    with make_display(sys.stderr) as display:
        if options.verify:
            datasets.verify(datasets.open_dataset(data), display.show_progress)
        else:
            datasets.prepare(data, display.show_progress, fetch=True)
    if data.name != "image_folder":
        data = dataclasses.replace(data, root=None)
    opened, sizes = datasets.open_dataset(data), datasets.sizes(data)
    summary = f"{sizes.train} training and {sizes.test} test images, {sizes.num_classes} classes"
    print(f"{data.name} {opened.version}: {summary}" + (", OK" if options.verify else ""))


def _check_source(options: argparse.Namespace) -> None:
    if options.source and options.dataset == "digits":
        raise InputError(f"--from {options.source!r}: the digits come with scikit-learn, not from a file")
    if options.source and options.verify and options.dataset != "image_folder":
        raise InputError(
            f"--from {options.source!r}: --verify compares the prepared {options.dataset} with the hashes recorded "
            "then, not with its source; leave out one of the two"
        )
    if options.unreadable == "skip" and options.dataset != "image_folder":
        raise InputError("--data.unreadable is 'skip': only of an image_folder are images left out")


def import_weights(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Checks a PyTorch weight file against a network, and writes it as .safetensors for model.initial_weights."""
    out = options.out or Path(f"{options.network}.safetensors")
    config = ModelConfig(options.network, options.small_images, options.width, options.blocks)
    if not options.file.is_file():
        raise InputError(f"weights: {options.file} is not a file")
    if not out.parent.is_dir() or out.is_dir():
        raise InputError(f"--out {out}: it must be a file in a folder that exists")
    if out.exists() and out.samefile(options.file):
        raise InputError(f"--out {out} is the imported file: name another file")
    check_output("--out", out)
    try:
        imported = networks.import_weights(config, options.file, out, options.key)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
    head = "no head" if imported.num_classes is None else f"a head of {imported.num_classes} classes"
    print(f"{out}: {options.network}, {imported.parameters:,} parameters, {head}")


def bench(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Measures this machine: training steps of networks, or with --data the images/s of the input pipeline."""
    from stepwise_jax.cli.bench.command import print_benchmark, require_measurement, run_benchmark
    from stepwise_jax.functional.networks import build_network

    compute_in_main_thread()
    document = run_benchmark(vars(options), build_network)
    if options.json:
        _print_json(document)
    else:
        print_benchmark(document)
    require_measurement(document)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))
