"""The folder of a run: the names of its files, and the experiment that it belongs to."""

import dataclasses
import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import differences, from_json, to_json
from stepwise_jax.plans.planning import STRATEGIES
from stepwise_jax.plans.stage import Stage, stage_document, stage_from_document
from stepwise_jax.workdir.files import CHECKPOINTS, CONFIG, SUBSETS, SUMMARY
from stepwise_jax.workdir.json_files import read_json, write_json

# Fields that may change between two processes of one run, because what is computed does not depend on them.
# Of the file of initial weights its content counts, not its place. A run that stopped because its loss was not finite
# may be told to go back.
FREE_FIELDS = (
    "checkpoint.",
    "data.root",
    "data.data_dir",
    "data.delivery",
    "data.workers",
    "evaluation.batch_size",
    "model.initial_weights",
    "on_nan",
    "reproduces",
)

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "stepwise-jax")


def describe(
    experiment: ExperimentConfig, stages: Sequence[Stage], config_path: str, weights_sha256: str | None, device: str
) -> dict[str, Any]:
    """What `config.json` holds: the whole resolved experiment, and what it ran with."""
    return {
        "experiment": to_json(experiment),
        "stages": [stage_document(stage) for stage in stages],
        "strategy": describe_strategy(experiment),
        "initial_weights_sha256": weights_sha256,
        "versions": {name: installed_version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
        "device": device,
        "config": config_path,
    }


def describe_strategy(experiment: ExperimentConfig) -> dict[str, str | None]:
    """The strategy's name, and for a function of the user's own the hash of the file that it stands in."""
    strategy = experiment.plan.strategy
    if not callable(strategy):
        return {"name": strategy, "file_sha256": None}
    path = Path(getattr(getattr(strategy, "__code__", None), "co_filename", ""))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return {"name": getattr(strategy, "__name__", "function"), "file_sha256": sha256}


def installed_version(name: str) -> str | None:
    """The version of a package; None where it is not installed, as in a clone that is run as it is."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_config(workdir: Path) -> dict[str, Any]:
    """A run's `config.json`.

    Raises:
      InputError: where there is none, or it is damaged.
    """
    document = read_json(workdir / CONFIG)
    if not isinstance(document, dict) or not {"experiment", "stages", "strategy"} <= document.keys():
        raise InputError(f"{workdir / CONFIG} is no run's: it has no experiment, stages and strategy")
    return document


def recorded_experiment(document: dict[str, Any]) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    """The exact experiment and stages of a run from its `config.json`.

    A strategy of the user's own comes back as a function that returns the recorded stages.

    Raises:
      InputError: if the document is not what `describe` makes.
    """
    parts = {"stages": list, "experiment": dict, "strategy": dict}
    damaged = [name for name, kind in parts.items() if not isinstance(document[name], kind)]
    if damaged or not {"name", "file_sha256"} <= document["strategy"].keys():
        raise InputError(f"{CONFIG} is damaged: {(damaged or ['strategy'])[0]} is not what a run writes there")
    stages = tuple(stage_from_document(stage) for stage in document["stages"])

    def recorded_strategy(*_: object) -> tuple[Stage, ...]:
        return stages

    recorded_strategy.__name__ = document["strategy"]["name"]
    own = document["strategy"]["name"] not in STRATEGIES or document["strategy"]["file_sha256"] is not None
    return from_json(document["experiment"], recorded_strategy if own else None), stages


def recorded(workdir: Path) -> ExperimentConfig | None:
    """The experiment of the run in this folder, or None where there is no run yet."""
    return recorded_experiment(read_config(workdir))[0] if _began(workdir) else None


def _began(workdir: Path) -> bool:
    # Subsets are recorded once the data is open: a run that failed before has done nothing that binds a later one.
    opened = (workdir / SUBSETS).exists() or (workdir / CHECKPOINTS).exists()
    return (workdir / CONFIG).exists() and opened


def continue_or_start(
    workdir: Path,
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    config_path: str,
    weights_sha256: str | None,
    device: str,
) -> tuple[Stage, ...]:
    """The stages to run: the recorded ones where the workdir has a run, else these, recorded now.

    Args:
      workdir: locked by the caller.
      experiment: with every open choice resolved.
      stages: the plan.
      config_path: the configuration file, for the record.
      weights_sha256: digest of the weights that the run starts from; None for random ones.
      device: the devices in words, for the record.

    Raises:
      InputError: if the workdir's run is another experiment, with each differing field.
    """
    if not _began(workdir):
        write_json(workdir / CONFIG, describe(experiment, stages, config_path, weights_sha256, device))
        return stages
    document = read_config(workdir)
    changed = _changes(document, experiment, stages)
    if document.get("initial_weights_sha256") != weights_sha256:
        changed.append("model.initial_weights: other weights than the run began with")
    _refuse(workdir, changed)
    return recorded_experiment(document)[1]


def check_finished(workdir: Path, experiment: ExperimentConfig, stages: tuple[Stage, ...]) -> None:
    """Checks that the finished run in a folder, if there is one, is of this experiment and plan.

    Raises:
      InputError: if it is of another, with each differing field.
    """
    if not (workdir / SUMMARY).exists():
        return
    document = read_config(workdir)
    if not experiment.steps_per_call:
        chosen = recorded_experiment(document)[0].steps_per_call
        experiment = dataclasses.replace(experiment, steps_per_call=chosen)
    _refuse(workdir, _changes(document, experiment, stages))


def _changes(document: dict[str, Any], experiment: ExperimentConfig, stages: tuple[Stage, ...]) -> list[str]:
    """What differs from a recorded run: fields, or else stages."""
    recorded, recorded_stages = recorded_experiment(document)
    changed = binding_differences(experiment, recorded)
    if document["strategy"]["name"] == describe_strategy(experiment)["name"]:
        # A function of the user's own never equals the recorded one: its stages are compared instead.
        changed = [each for each in changed if not each.startswith(("plan.strategy:", "plan.staged:"))]
    return changed or _stage_differences(stages, recorded_stages)


def _refuse(workdir: Path, changed: Sequence[str]) -> None:
    if changed:
        raise InputError(f"{workdir} holds another experiment ({'; '.join(changed)}): use another workdir for this one")


def binding_differences(ours: ExperimentConfig, theirs: ExperimentConfig) -> list[str]:
    """One phrase for each field that differs and that what is computed depends on."""
    return [each for each in differences(ours, theirs) if not each.startswith(FREE_FIELDS)]


def _stage_differences(ours: Sequence[Stage], theirs: Sequence[Stage]) -> list[str]:
    if len(ours) != len(theirs):
        return [f"stages: {len(ours)} instead of {len(theirs)}"]
    return [
        f"{name} of stage {index}: {value!r} instead of {getattr(other, name)!r}"
        for index, (stage, other) in enumerate(zip(ours, theirs, strict=True), start=1)
        for name, value in dataclasses.asdict(stage).items()
        if value != getattr(other, name)
    ]
