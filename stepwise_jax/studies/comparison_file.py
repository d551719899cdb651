"""`comparison.json`: the arms and seeds of a comparison, its design, its looks, and its tuning."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.serialization import experiment_from_document, experiment_to_dict
from stepwise_jax.studies.comparison import Arm, Comparison, protocol_from_dict
from stepwise_jax.studies.designs.document import Design, check_design
from stepwise_jax.studies.designs.history import History, add_look, history_from_dict, history_to_dict, new_history
from stepwise_jax.studies.tuning import TunedArm, tuning_from_dict
from stepwise_jax.workdir.files import SUMMARY
from stepwise_jax.workdir.folder import recorded_functions
from stepwise_jax.workdir.json_files import read_json, write_json

COMPARISON_FILE = "comparison.json"


def comparison_to_dict(comparison: Comparison, design: Design | None, history: History) -> dict[str, Any]:
    """The comparison as plain data, without its tuning."""
    return {
        "config": comparison.config,
        "experiment": experiment_to_dict(comparison.experiment),
        "functions": recorded_functions(comparison.experiment),
        "seeds": list(comparison.seeds),
        "strategies": [
            {"name": arm.name, "title": arm.title, "config": arm.config, "changes": dict(arm.changes)}
            for arm in comparison.arms
        ],
        "protocol": dataclasses.asdict(comparison.protocol),
        "design": None if design is None else {"sha256": design.sha256, "document": design.document},
        "history": history_to_dict(history),
    }


def read_comparison(root: Path) -> Comparison:
    """Read the comparison in a folder.

    Raises:
      InputError: where there is none, or its document is damaged.
    """
    with _damaged(root) as document:
        arms = tuple(_arm_from_dict(**arm) for arm in document["strategies"])
        seeds = tuple(int(seed) for seed in document["seeds"])
        if len(arms) < 2 or not seeds:
            raise ValueError("nothing is compared")
        experiment = experiment_from_document(document)
        protocol = protocol_from_dict(document.get("protocol", {}))
        return Comparison(str(document["config"]), experiment, arms, seeds, protocol)


@contextmanager
def _damaged(root: Path) -> Iterator[dict[str, Any]]:
    """The comparison's document; whatever it lacks makes it damaged."""
    document = read_json(root / COMPARISON_FILE)
    try:
        yield document
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{root / COMPARISON_FILE} is damaged: it is JSON, but no comparison") from error


def read_design_of(root: Path) -> Design | None:
    """The design of the comparison in a folder, or None where it has none."""
    with _damaged(root) as document:
        recorded = document.get("design")
        return None if recorded is None else check_design(recorded["document"], str(root / COMPARISON_FILE))


def read_history(root: Path) -> History:
    """What the comparison in a folder has decided, and its looks; one of an earlier version was looked at."""
    compared = read_comparison(root)
    with _damaged(root) as document:
        if "history" in document:
            return history_from_dict(document["history"])
    return add_look(new_history(compared), _count_finished(compared, root))


def _count_finished(comparison: Comparison, root: Path) -> dict[str, int]:
    return {
        arm.name: sum((comparison.run_folder(root, arm.name, seed) / SUMMARY).exists() for seed in comparison.seeds)
        for arm in comparison.arms
    }


def record_look(root: Path) -> None:
    """Record that the results in a folder are looked at now."""
    compared, history = read_comparison(root), read_history(root)
    after = add_look(history, _count_finished(compared, root))
    if after != history:
        update_document(root, "history", history_to_dict(after))


def count_looks(root: Path) -> int:
    """How many looks at the results in a folder were planned, or made where these are more; at least one."""
    return max(1, len(read_comparison(root).protocol.looks), len(read_history(root).looks))


def read_tuning(root: Path) -> dict[str, TunedArm]:
    """The arms that are tuned, by name; none where the folder holds no comparison yet."""
    if not (root / COMPARISON_FILE).exists():
        return {}
    names = [arm.name for arm in read_comparison(root).arms]
    with _damaged(root) as document:
        tuned = tuning_from_dict(document.get("tuning"))
        return {name: tuned[name] for name in names if name in tuned}


def update_document(root: Path, name: str, value: Any) -> None:
    """Replace one entry of a comparison's document."""
    write_json(root / COMPARISON_FILE, {**read_json(root / COMPARISON_FILE), name: value})


def _arm_from_dict(name: str, title: str, config: str, changes: Mapping[str, Any]) -> Arm:
    return Arm(str(name), str(title), str(config), dict(changes))
