"""The folder of a run and its `config.json`: the experiment that the folder belongs to."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.functions import describe_function, record_from_dict, record_to_dict
from stepwise_jax.experiment.serialization import (
    experiment_from_dict,
    experiment_functions,
    experiment_to_dict,
    field_differences,
    function_name,
)
from stepwise_jax.plans.registry import is_registered
from stepwise_jax.plans.stage import Stage, stage_from_dict, stage_to_dict
from stepwise_jax.workdir.files import CHECKPOINTS, CONFIG, SUBSETS, SUMMARY
from stepwise_jax.workdir.json_files import read_json, write_json

# Fields that may change when a run is resumed, because the computation does not depend on them. The initial weights are
# compared by content, not by path. `on_nan` may change so that a run whose loss was not finite can be resumed.
CHANGEABLE_FIELDS = (
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


def config_document(
    experiment: ExperimentConfig, stages: Sequence[Stage], config_path: str, weights_sha256: str | None, device: str
) -> dict[str, Any]:
    """The document of `config.json`: the whole resolved experiment, and the software and devices that it ran with."""
    return {
        "experiment": experiment_to_dict(experiment),
        "stages": [stage_to_dict(stage) for stage in stages],
        "strategy": describe_strategy(experiment),
        "functions": recorded_functions(experiment),
        "initial_weights_sha256": weights_sha256,
        "versions": library_versions(),
        "device": device,
        "config": config_path,
    }


def describe_strategy(experiment: ExperimentConfig) -> dict[str, str | None]:
    """The strategy's name, and for a user-defined function its module and the SHA-256 of its file."""
    strategy = experiment.plan.strategy
    if not callable(strategy):
        return {"name": strategy, "module": None, "file_sha256": None}
    record = describe_function(strategy)
    return {"name": function_name(strategy), "module": record.module, "file_sha256": record.sha256}


def recorded_functions(experiment: ExperimentConfig) -> dict[str, dict[str, Any]]:
    """The records of the user's own functions, by field; the stages of a strategy are recorded themselves."""
    functions = experiment_functions(experiment)
    return {
        name: record_to_dict(describe_function(each))
        for name, each in functions.items()
        if name not in ("plan.strategy", "plan.staged")
    }


def library_versions() -> dict[str, str | None]:
    """The versions of Python and of the packages that a result depends on."""
    return {name: installed_version(name) for name in _LIBRARIES} | {"python": platform.python_version()}


def installed_version(name: str) -> str | None:
    """The version of a package; None if it is not installed, as in a clone that is run in place."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_config(workdir: Path) -> dict[str, Any]:
    """Read a run's `config.json`.

    Raises:
      InputError: if it is missing or damaged.
    """
    document = read_json(workdir / CONFIG)
    if not isinstance(document, dict) or not {"experiment", "stages", "strategy"} <= document.keys():
        raise InputError(f"{workdir / CONFIG} does not describe a run: it has no experiment, stages and strategy")
    return document


def parse_config(document: dict[str, Any]) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    """The exact experiment and stages of a run from its `config.json`.

    A user-defined strategy becomes a function that returns the recorded stages.

    Raises:
      InputError: if the document is not one of `config_document`.
    """
    parts = {"stages": list, "experiment": dict, "strategy": dict}
    damaged = [name for name, kind in parts.items() if not isinstance(document[name], kind)]
    if damaged or not {"name", "file_sha256"} <= document["strategy"].keys():
        raise InputError(f"{CONFIG} is damaged: its {(damaged or ['strategy'])[0]} is not valid")
    stages = tuple(stage_from_dict(stage) for stage in document["stages"])

    def recorded_strategy(*_: object) -> tuple[Stage, ...]:
        return stages

    name = document["strategy"]["name"]
    recorded_strategy.__name__ = recorded_strategy.__qualname__ = name
    own = not is_registered(name) or document["strategy"]["file_sha256"] is not None
    strategy = {"plan.strategy": recorded_strategy} if own else {}
    return experiment_from_dict(document["experiment"], _load_functions(document) | strategy), stages


def _load_functions(document: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The recorded functions, each of which is loaded from its file when it is called."""
    try:
        return {name: record_from_dict(each) for name, each in document.get("functions", {}).items()}
    except (TypeError, AttributeError) as error:
        raise InputError(f"{CONFIG} is damaged: its functions are not valid") from error


def read_experiment(workdir: Path) -> ExperimentConfig | None:
    """The experiment of the run in this folder, or None where there is no run yet."""
    return parse_config(read_config(workdir))[0] if _has_run(workdir) else None


def _has_run(workdir: Path) -> bool:
    # Subsets are recorded once the data is open. A run that failed before that leaves the folder free for another.
    started = (workdir / SUBSETS).exists() or (workdir / CHECKPOINTS).exists()
    return (workdir / CONFIG).exists() and started


def _check_config_not_lost(workdir: Path) -> None:
    """Refuse to continue from the checkpoints of a run whose experiment nobody knows: another would go on in it."""
    checkpoints = workdir / CHECKPOINTS
    if not (workdir / CONFIG).exists() and checkpoints.exists() and any(checkpoints.iterdir()):
        raise InputError(f"{workdir} has checkpoints and no {CONFIG}: restore that file, or use another workdir")


def resume_or_start(
    workdir: Path,
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    config_path: str,
    weights_sha256: str | None,
    device: str,
) -> tuple[Stage, ...]:
    """The stages to train: the recorded ones if the workdir has a run, else the given ones, which are recorded now.

    Args:
      workdir: locked by the caller.
      experiment: with every automatic choice resolved.
      stages: the plan.
      config_path: the configuration file, for the record.
      weights_sha256: SHA-256 of the initial weights; None for random ones.
      device: the devices in words, for the record.

    Raises:
      InputError: if the workdir holds another experiment, with each field that differs, or has lost its `config.json`.
    """
    if not _has_run(workdir):
        _check_config_not_lost(workdir)
        write_json(workdir / CONFIG, config_document(experiment, stages, config_path, weights_sha256, device))
        return stages
    document = read_config(workdir)
    changed = _changes(document, experiment, stages)
    if document.get("initial_weights_sha256") != weights_sha256:
        changed.append("model.initial_weights: not the weights that the run started from")
    _reject_changes(workdir, changed)
    return parse_config(document)[1]


def holds_other_files(root: Path, document: str) -> bool:
    """Whether a folder holds anything beside its document and what another process is just writing it to."""
    return any(each.name != document and not each.name.startswith(f".{document}.") for each in root.iterdir())


def check_finished_run(workdir: Path, experiment: ExperimentConfig, stages: tuple[Stage, ...]) -> None:
    """Check that the finished run in a folder, if there is one, has this experiment and plan.

    Raises:
      InputError: if it has another, with each field that differs.
    """
    if not (workdir / SUMMARY).exists():
        return
    document = read_config(workdir)
    if not experiment.steps_per_call:
        chosen = parse_config(document)[0].steps_per_call
        experiment = dataclasses.replace(experiment, steps_per_call=chosen)
    _reject_changes(workdir, _changes(document, experiment, stages))


def _changes(document: dict[str, Any], experiment: ExperimentConfig, stages: tuple[Stage, ...]) -> list[str]:
    """The differences from a recorded run: in fields, or else in stages."""
    recorded, recorded_stages = parse_config(document)
    changed = conflicting_fields(experiment, recorded)
    if document["strategy"]["name"] == describe_strategy(experiment)["name"]:
        # A user-defined function never equals the recorded one: its stages are compared instead.
        changed = [each for each in changed if not each.startswith(("plan.strategy:", "plan.staged:"))]
    return changed or _stage_differences(stages, recorded_stages)


def _reject_changes(workdir: Path, changed: Sequence[str]) -> None:
    if changed:
        raise InputError(f"{workdir} holds another experiment ({'; '.join(changed)}): use another workdir for this one")


def conflicting_fields(ours: ExperimentConfig, theirs: ExperimentConfig) -> list[str]:
    """One phrase for each field that differs and that affects the computation."""
    return [each for each in field_differences(ours, theirs) if not each.startswith(CHANGEABLE_FIELDS)]


def _stage_differences(ours: Sequence[Stage], theirs: Sequence[Stage]) -> list[str]:
    if len(ours) != len(theirs):
        return [f"stages: {len(ours)} instead of {len(theirs)}"]
    return [
        f"{name} of stage {index}: {value!r} instead of {getattr(other, name)!r}"
        for index, (stage, other) in enumerate(zip(ours, theirs, strict=True), start=1)
        for name, value in dataclasses.asdict(stage).items()
        if value != getattr(other, name)
    ]
