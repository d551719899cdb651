"""The words that each command of `launch.py` takes; the fields of an experiment are parsed once its CONFIG is known."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepwise_jax import __version__
from stepwise_jax.formatting import program_name

_DESCRIPTION = "stepwise-jax: train image classifiers in stages of growing data, and measure what that is worth."


def make_parser(commands: Mapping[str, Callable[..., Any]]) -> argparse.ArgumentParser:
    """A parser whose `options.function` is the command's function.

    Args:
      commands: functions by name, in the order in which `--help` lists them; their docstrings are their help.
    """
    parser = argparse.ArgumentParser(prog=program_name(), description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"stepwise-jax {__version__}")
    added = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for key, function in commands.items():
        name, (usage, add_options) = key.replace("_", "-"), _OPTIONS[key]
        command = added.add_parser(
            name,
            help=function.__doc__,
            description=function.__doc__,
            usage=f"{program_name()} {name} {usage}",
            allow_abbrev=False,
        )
        command.set_defaults(function=function)
        add_options(command)
    return parser


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it must be the name of a folder")
    return Path(text)


_CONFIG = "a configuration file, such as configs/digits.py; it is Python, and is run: read one of others first"


def _plan(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help=_CONFIG)
    command.add_argument("--memory", action="store_true", help="compile each step, and show the memory that it needs")
    command.add_argument("--json", action="store_true", help="print one JSON document")


def _train(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help=_CONFIG)
    command.add_argument(
        "--workdir", type=_folder, required=True, metavar="DIR", help="folder of the run, new or stopped"
    )
    command.add_argument(
        "--profile", metavar="STAGE:EPOCH", help="trace this epoch (1:2, say) with JAX's profiler into DIR/profile"
    )
    several = command.add_argument_group("several processes that train together, each started with the same words")
    several.add_argument(
        "--distributed", action="store_true", help="join those that Slurm, Open MPI, a TPU pod or Kubernetes tells of"
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where the first process waits for the others")
    several.add_argument("--processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process-id", type=int, metavar="I", help="which of them this one is, from 0")
    several.add_argument(
        "--heartbeat",
        type=int,
        default=100,
        metavar="SECONDS",
        help="silence after which one counts as dead (default: 100)",
    )


def _evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="DIR", help="folder of a run")
    command.add_argument("--data.root", dest="root", metavar="FOLDER", help="where its images lie now, if moved")
    command.add_argument(
        "--data.data_dir", "--data.data-dir", dest="data_dir", metavar="DIR", help="where it is prepared now, if moved"
    )
    command.add_argument("--json", action="store_true", help="print one JSON document")


def _compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help=_CONFIG)
    command.add_argument("--workdir", type=_folder, required=True, metavar="DIR", help="folder of the comparison")
    command.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each strategy (default: 5)")
    command.add_argument(
        "--strategies",
        default="",
        metavar="A,B,...",
        help="names of strategies or of rows of CONFIG, the first to compare with; rows: all of CONFIG's",
    )
    command.add_argument(
        "--processes", type=int, default=0, metavar="N", help="runs at a time (default: one a GPU, or one a core)"
    )


def _sweep(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help=_CONFIG)
    command.add_argument("--workdir", type=_folder, required=True, metavar="DIR", help="folder of the sweep")
    command.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="FIELD=V1,V2,...",
        help="values of a field; several make all combinations; figure1: the grids of the paper's Figure 1",
    )
    command.add_argument("--trials", type=int, default=0, metavar="N", help="points of a search (needs Optuna)")
    command.add_argument(
        "--samples", type=int, metavar="N", help="the most samples of a point of a search (default: the staged run's)"
    )
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each point (default: 1)")
    command.add_argument(
        "--processes", type=int, default=0, metavar="N", help="runs at a time (default: one a GPU, or one a core)"
    )


def _predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="DIR", help="folder of a run")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, or a pattern in quotes")
    command.add_argument("--top", type=int, default=5, metavar="N", help="classes an image (default: 5)")
    command.add_argument("--json", action="store_true", help="print one JSON document")


def _export(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="DIR", help="folder of a run")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends with .stablehlo or .safetensors")


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", type=Path, nargs="+", metavar="DIR", help="folders of runs")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report")


def _prepare(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", metavar="DATASET", help="cifar10, food101, ..., image_folder: see docs/data.md")
    command.add_argument("--from", dest="source", metavar="PATH", help="the file or folder that it is made from")
    command.add_argument("--data-dir", metavar="DIR", help="where to keep it; $TFDS_DATA_DIR or ~/tensorflow_datasets")
    command.add_argument("--verify", action="store_true", help="only hash what is prepared, and compare")


def _import_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument("network", metavar="NETWORK", help="the network that the weights are of, such as resnet50")
    command.add_argument("file", type=Path, metavar="FILE", help="a .pth, .pt or .safetensors file")
    command.add_argument("--out", type=Path, metavar="FILE", help="where to keep them; by default NETWORK.safetensors")


def _bench(command: argparse.ArgumentParser) -> None:
    # What is not given stays out of the namespace: what belongs to the other measurement is then noticed.
    left_out = argparse.SUPPRESS
    command.add_argument("networks", nargs="*", metavar="NETWORK", help="networks whose training steps to measure")
    command.add_argument("--data", action="store_true", help="measure the way of images to the device instead")
    command.add_argument("--image-size", type=int, default=left_out, help="what the network sees (default: 224)")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    _bench_steps(command.add_argument_group("for NETWORK..."), left_out)
    _bench_data(command.add_argument_group("for --data"), left_out)


def _bench_steps(group: Any, left_out: str) -> None:
    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=left_out, help=text, **kind)

    add("--batch-sizes", "images in a step (default: 24,48,72,96)", metavar="N,N,...")
    add("--precisions", "what networks compute in (default: float32,bfloat16)", metavar="NAME,...")
    add("--small-images", "the stem for images of about 32 pixels", action="store_true")
    add("--width", "channels of the first network stage (default: the network's own)", type=int, metavar="N")
    add("--blocks", "blocks of the network stages, up to four (default: the network's own)", metavar="A,B,C,D")
    add("--classes", "size of the output (default: 1000)", type=int, metavar="N")
    add("--steps-per-call", "steps in one compiled call (default: as a run)", type=int, metavar="N")
    add("--seconds", "for the turns of each combination (default: 10)", type=float, metavar="S")


def _bench_data(group: Any, left_out: str) -> None:
    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=left_out, help=text, **kind)

    add("--images", "JPEGs to make and deliver (default: 2048)", type=int)
    add("--side", "their height and width (default: 512)", type=int)
    add("--batch-size", "images in a batch (default: 96)", type=int)
    add("--epochs", "passes by each way (default: 2)", type=int)
    add("--streamed-only", "leave out the way that holds all in memory", action="store_true")


_OPTIONS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "plan": ("CONFIG [--memory] [--json] [--FIELD VALUE ...]", _plan),
    "train": ("CONFIG --workdir DIR [--distributed] [--profile STAGE:EPOCH] [--FIELD VALUE ...]", _train),
    "evaluate": ("DIR [--data.root FOLDER] [--data.data_dir DIR] [--json]", _evaluate),
    "compare": (
        "CONFIG --workdir DIR [--seeds N] [--strategies A,B,...] [--processes N] [--FIELD VALUE ...]",
        _compare,
    ),
    "sweep": (
        "CONFIG --workdir DIR (--grid FIELD=V1,V2 ... | --trials N [--samples N]) [...] [--FIELD VALUE ...]",
        _sweep,
    ),
    "predict": ("DIR IMAGE... [--top N] [--json]", _predict),
    "export": ("DIR --out FILE", _export),
    "report": ("DIR... --out DIR", _report),
    "prepare": ("DATASET [--from PATH] [--data-dir DIR] [--verify]", _prepare),
    "import_weights": ("NETWORK FILE [--out FILE]", _import_weights),
    "bench": (
        "(NETWORK... [--batch-sizes N,...] [--precisions NAME,...] | --data [--images N] [--side N]) [...]",
        _bench,
    ),
}
