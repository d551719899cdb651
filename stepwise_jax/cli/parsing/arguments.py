"""The arguments of each command. The fields of an experiment are parsed later, in `overrides`, from its CONFIG."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepwise_jax import __version__
from stepwise_jax.cli.bench.arguments import add_bench_options
from stepwise_jax.cli.comparisons.arguments import add_design_options, add_executor_options, add_protocol_options
from stepwise_jax.cli.parsing.parser import ArgumentParser
from stepwise_jax.formatting import parse_path, program_name

_DESCRIPTION = "stepwise-jax: train image classifiers in stages on growing subsets of the data, and measure the gain."


def make_parser(commands: Mapping[str, Callable[..., Any]]) -> argparse.ArgumentParser:
    """A parser that stores the chosen command's function as `options.function`.

    Args:
      commands: functions by name, in the order of `--help`; their docstrings are the help texts.
    """
    parser = ArgumentParser(prog=program_name(), description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"stepwise-jax {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for key, function in commands.items():
        name, (usage, add_options) = key.replace("_", "-"), _OPTIONS[key]
        command = subparsers.add_parser(
            name,
            help=function.__doc__,
            description=function.__doc__,
            usage=f"{program_name()} {name} {usage}",
        )
        command.set_defaults(function=function)
        add_options(command)
    return parser


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it must be the name of a folder")
    return _path(text)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it must be a path, and is empty")
    try:
        return parse_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas, as 3,4,6,3") from None


def _add_config(command: argparse.ArgumentParser) -> None:
    text = (
        "a shipped configuration (digits) or a file (configs/digits.py), with :ROW one of its rows; a file is Python "
        "code, and this command runs it: read other people's files first"
    )
    command.add_argument("config", metavar="CONFIG", help=text)


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=_path, metavar="DIR", help="folder of a run")


def _add_weights(command: argparse.ArgumentParser) -> None:
    text = "weights as trained (raw), or their moving average (ema) of a run with optimizer.ema_decay (default: raw)"
    command.add_argument("--weights", choices=("raw", "ema"), default="raw", help=text)


def _add_workdir(command: argparse.ArgumentParser, text: str, required: bool = True) -> None:
    command.add_argument("--workdir", type=_folder, required=required, metavar="DIR", help=text)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON document")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _add_log(command: argparse.ArgumentParser) -> None:
    text = "also log to wandb, mlflow or trackio; TensorBoard's events are always written"
    command.add_argument("--log", type=_names, action="extend", default=[], metavar="NAME,...", help=text)


def _add_plan_options(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    command.add_argument(
        "--compare",
        type=_names,
        metavar="A,B,...",
        help="show several plans: strategies or rows of CONFIG, 'rows' for all of these, 'all' for all strategies",
    )
    command.add_argument("--out", type=_path, metavar="FILE", help="also draw the plans, as .png or .svg")
    command.add_argument("--memory", action="store_true", help="compile each training step, and show its memory")
    _add_json(command)


def _add_train_options(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    _add_workdir(command, "folder of the run, new or to resume")
    _add_log(command)
    command.add_argument(
        "--mirror", metavar="URL", help="copy DIR there after each checkpoint; if DIR is empty, take the run from there"
    )
    command.add_argument("--verbose", action="store_true", help="also show what is compiled, and where images are kept")
    command.add_argument(
        "--log-group", type=_folder, metavar="DIR", help="folder of the study that holds the run: the run's group there"
    )
    command.add_argument(
        "--profile", metavar="STAGE:EPOCH", help="trace this epoch (for example 1:2) with JAX's profiler to DIR/profile"
    )
    group = command.add_argument_group("several processes that train together, each started with the same arguments")
    group.add_argument(
        "--distributed", action="store_true", help="find the processes from Slurm, Open MPI, a TPU pod or Kubernetes"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where the first process waits for the others")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="index of this process, from 0")
    group.add_argument(
        "--heartbeat",
        type=int,
        default=100,
        metavar="SECONDS",
        help="seconds of silence after which a process counts as dead (default: 100)",
    )


def _add_evaluate_options(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument("--data.root", dest="root", metavar="FOLDER", help="new folder of its images, if moved")
    command.add_argument(
        "--data.data_dir",
        "--data.data-dir",
        dest="data_dir",
        metavar="DIR",
        help="new folder of its prepared data, if moved",
    )
    _add_json(command)


_MIRROR_OF_RUNS = "copy DIR there, each run after its checkpoints; what DIR lacks, take from there"


def _add_compare_options(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    _add_workdir(command, "folder of the comparison", required=False)
    _add_log(command)
    command.add_argument("--mirror", metavar="URL", help=_MIRROR_OF_RUNS)
    add_protocol_options(command, _numbers, _names)
    add_executor_options(command)
    add_design_options(command, _path)


def _add_sweep_options(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    _add_workdir(command, "folder of the sweep")
    _add_log(command)
    command.add_argument("--mirror", metavar="URL", help=_MIRROR_OF_RUNS)
    command.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="FIELD=V1,V2,...",
        help="values of a field; repeat it for all combinations; 'figure1' means the grids of the paper's Figure 1",
    )
    command.add_argument("--trials", type=int, default=0, metavar="N", help="points of a search (needs Optuna)")
    command.add_argument(
        "--samples", type=int, metavar="N", help="planned samples of a search point at most (default: the staged run's)"
    )
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each point (default: 1)")
    add_executor_options(command)


def _add_predict_options(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, or a pattern in quotes")
    command.add_argument("--top", type=int, default=5, metavar="N", help="classes for each image (default: 5)")
    _add_weights(command)
    _add_json(command)


def _add_export_options(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument(
        "--out", type=_path, required=True, metavar="FILE", help="a file that ends with .stablehlo or .safetensors"
    )
    _add_weights(command)


def _add_report_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", type=_path, nargs="+", metavar="DIR", help="folders of runs")
    command.add_argument("--out", type=_path, required=True, metavar="DIR", help="folder for the report")


def _add_prepare_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", metavar="DATASET", help="cifar10, food101, ..., image_folder: see docs/data.md")
    command.add_argument("--from", dest="source", metavar="PATH", help="its source file or folder")
    command.add_argument(
        "--data-dir", metavar="DIR", help="destination (default: $TFDS_DATA_DIR, or ~/tensorflow_datasets)"
    )
    command.add_argument("--verify", action="store_true", help="only compare the hashes of the prepared files")
    command.add_argument(
        "--data.unreadable",
        dest="unreadable",
        choices=("refuse", "skip"),
        default="refuse",
        help="what to do with images of an image_folder that cannot be decoded (default: refuse)",
    )
    command.add_argument(
        "--data.duplicates",
        dest="duplicates",
        choices=("warn", "drop", "refuse"),
        default="warn",
        help="what to do with images that have identical pixels (default: warn)",
    )


def _add_import_weights_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("network", metavar="NETWORK", help="network of the weights, such as resnet50")
    command.add_argument("file", type=_path, metavar="FILE", help="a .pth, .pt or .safetensors file")
    command.add_argument("--out", type=_path, metavar="FILE", help="destination (default: NETWORK.safetensors)")
    command.add_argument(
        "--key", metavar="KEY", help="which weights, if FILE holds several networks, such as model_ema or teacher"
    )
    command.add_argument("--small-images", action="store_true", help="the network has the stem for small images")
    command.add_argument("--width", type=int, metavar="N", help="its channels, if not the usual ones")
    command.add_argument("--blocks", type=_numbers, metavar="A,B,C,D", help="its blocks, if not the usual ones")


def _add_bench_options(command: argparse.ArgumentParser) -> None:
    add_bench_options(command)
    _add_json(command)


_OPTIONS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "plan": ("CONFIG [--compare A,B,...] [--out FILE] [--memory] [--json] [--FIELD VALUE ...]", _add_plan_options),
    "train": (
        "CONFIG --workdir DIR [--log NAME,...] [--mirror URL] [--distributed] [...] [--FIELD VALUE ...]",
        _add_train_options,
    ),
    "evaluate": ("DIR [--data.root FOLDER] [--data.data_dir DIR] [--json]", _add_evaluate_options),
    "compare": (
        "(CONFIG [--seeds N] [--strategies A,B,...] | --design FILE) --workdir DIR [...] [--FIELD VALUE ...]\n"
        "       CONFIG --plan-design FILE [--pilot DIR] [...] [--FIELD VALUE ...]",
        _add_compare_options,
    ),
    "sweep": (
        "CONFIG --workdir DIR (--grid FIELD=V1,V2 ... | --trials N [--samples N]) [...] [--FIELD VALUE ...]",
        _add_sweep_options,
    ),
    "predict": ("DIR IMAGE... [--top N] [--weights raw|ema] [--json]", _add_predict_options),
    "export": ("DIR --out FILE [--weights raw|ema]", _add_export_options),
    "report": ("DIR... --out DIR", _add_report_options),
    "prepare": ("DATASET [--from PATH] [--data-dir DIR] [--verify]", _add_prepare_options),
    "import_weights": (
        "NETWORK FILE [--out FILE] [--key KEY] [--small-images] [--width N] [--blocks A,B,C,D]",
        _add_import_weights_options,
    ),
    "bench": (
        "(NETWORK... [--batch-sizes N,...] [--precisions NAME,...] | --data [--images N] [--side N]) [...]",
        _add_bench_options,
    ),
}
