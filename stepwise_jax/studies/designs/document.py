"""The design of a comparison: a file that fixes everything beforehand, and is known by its hash."""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import comparable_fields
from stepwise_jax.runtime.files import atomic_write
from stepwise_jax.studies.comparison import Arm, Comparison, Protocol, protocol_from_dict
from stepwise_jax.studies.designs.toml import flatten, to_toml
from stepwise_jax.workdir.files import open_file
from stepwise_jax.workdir.folder import CHANGEABLE_FIELDS

METRIC = "top1"

STOPPING = "every seed is trained, whatever a look shows"

_TITLE = """\
# The design of a comparison, fixed before its first run. `compare --design` runs exactly this, and refuses a file that
# was changed after the start. margin: points of top-1 within which two strategies count as equivalent. looks: numbers
# of seeds after which the results are looked at. tune_trials: learning rates tried for each strategy on held-out
# training images. experiment: every field that is not the default.

"""

_KINDS = {
    "config": str,
    "metric": str,
    "margin": int | float,
    "seeds": list,
    "looks": list,
    "stopping": str,
    "tune_trials": int,
    "arms": list,
}

_OPTIONAL = {"vary": list, "fields": dict, "experiment": dict}


@dataclass(frozen=True)
class Design:
    """Everything that is fixed before the first run of a comparison, as plain data."""

    document: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of the content; spaces, comments and the order of the entries do not count."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()

    @property
    def config(self) -> str:
        """The configuration file."""
        return self.document["config"]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of every arm."""
        return tuple(self.document["seeds"])

    def arms(self) -> tuple[Arm, ...]:
        """The arms, the reference first."""
        return tuple(
            Arm(each["name"], each["title"], each["config"], each.get("changes", {})) for each in self.document["arms"]
        )

    def protocol(self) -> Protocol:
        """The margin, the looks and the tuning."""
        names = [item.name for item in dataclasses.fields(Protocol) if item.name in self.document]
        return protocol_from_dict({name: self.document[name] for name in names})

    def field_arguments(self) -> tuple[str, ...]:
        """The fields that were given on the command line, as they were."""
        fields = self.document.get("fields", {})
        return tuple(word for name, words in fields.items() for word in (f"--{name}", *words))


def make_design(comparison: Comparison, experiments: Mapping[str, ExperimentConfig], fields: Sequence[str]) -> Design:
    """Return the design of a comparison that has not started.

    Args:
      comparison: the comparison.
      experiments: by the arm's name.
      fields: command-line arguments that change fields of the configuration for every run.
    """
    protocol = dataclasses.asdict(comparison.protocol)
    if not protocol["vary"]:
        del protocol["vary"]
    document = {
        "config": comparison.config,
        "metric": METRIC,
        **protocol,
        "looks": comparison.protocol.looks or (len(comparison.seeds),),
        "stopping": STOPPING,
        "seeds": comparison.seeds,
        "fields": _split_fields(fields),
        "arms": [_arm_table(arm, comparison.experiment, experiments[arm.name]) for arm in comparison.arms],
        "experiment": fixed_fields(comparison.experiment),
    }
    return Design(_normalise(document))


def fixed_fields(experiment: ExperimentConfig) -> dict[str, Any]:
    """Every field that affects the computation and is not the default, by its dotted name; functions by a hash."""
    defaults = comparable_fields(ExperimentConfig())
    return {
        name: "None" if value is None else value
        for name, value in comparable_fields(experiment).items()
        if value != defaults[name] and not name.startswith(CHANGEABLE_FIELDS)
    }


def _arm_table(arm: Arm, experiment: ExperimentConfig, own: ExperimentConfig) -> dict[str, Any]:
    """An arm; one that is a row of the configuration with all fields in which the row differs."""
    table = {"name": arm.name, "title": arm.title, "config": arm.config, "changes": dict(arm.changes)}
    ours, theirs = fixed_fields(own), fixed_fields(experiment)
    names = [name for name in {**ours, **theirs} if name not in arm.changes and ours.get(name) != theirs.get(name)]
    return table | ({"differs": {name: ours.get(name, "default") for name in names}} if names else {})


def _split_fields(fields: Sequence[str]) -> dict[str, list[str]]:
    """The values of `--FIELD VALUE ...` by dotted name, without the fields that may differ between machines."""
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for word in fields:
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            found[name.replace("-", "_")] = values = [value] if equals else []
        else:
            values.append(word)
    return {name: words for name, words in found.items() if not name.startswith(CHANGEABLE_FIELDS)}


def _normalise(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as it is read back: lists for tuples, dotted names, a margin with a fraction, no empty table."""
    plain = json.loads(json.dumps(document))
    for name in ("fields", "experiment"):
        plain[name] = flatten(plain.get(name, {}))
    plain["arms"] = [
        {name: flatten(each) if isinstance(each, dict) else each for name, each in arm.items() if each != {}}
        for arm in plain["arms"]
    ]
    plain["margin"] = float(plain["margin"])
    return {name: value for name, value in plain.items() if value != {}}


def write_design(path: Path, design: Design) -> None:
    """Write a design as TOML.

    Raises:
      InputError: if the file exists, or cannot be written.
    """
    if path.exists():
        raise InputError(f"--plan-design {path} exists: a design is never overwritten, so name a new file")
    try:
        with atomic_write(path) as file:
            file.write((_TITLE + to_toml(design.document)).encode())
    except OSError as error:
        raise InputError(f"--plan-design {path} cannot be written: {error.strerror}") from error


def read_design(path: Path) -> Design:
    """Read the design in a file.

    Raises:
      InputError: if it cannot be read, or is no design.
    """
    try:
        with open_file(path) as file:
            document = tomllib.load(file)
    except OSError as error:
        raise InputError(f"--design {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--design {path} is not TOML: {error}") from error
    return check_design(document, f"--design {path}")


def check_design(document: Mapping[str, Any], source: str) -> Design:
    """Return a document as a design.

    Args:
      document: of a file.
      source: names the file in messages.

    Raises:
      InputError: naming an entry that is missing, unknown, or of another kind.
    """
    wrong = _wrong_kind(document) or _wrong_content(document)
    if wrong is not None:
        raise InputError(f"{source} is no design: its entry {wrong!r} is missing or not valid")
    return Design(_normalise(document))


def _wrong_kind(document: Mapping[str, Any]) -> str | None:
    kinds = _KINDS | {name: kind for name, kind in _OPTIONAL.items() if name in document}
    wrong = (name for name, kind in kinds.items() if not isinstance(document.get(name), kind))
    return next(wrong, None) or next((name for name in document if name not in kinds), None)


def _wrong_content(document: Mapping[str, Any]) -> str | None:
    seeds, looks, arms = (document[name] for name in ("seeds", "looks", "arms"))
    checks = {
        "seeds": _rising(seeds) and seeds[0] >= 0,
        "looks": _rising(looks) and looks[0] >= 1 and looks[-1] == len(seeds),
        "tune_trials": document["tune_trials"] >= 0 and not isinstance(document["tune_trials"], bool),
        "arms": len(arms) > 1 and all(isinstance(arm, dict) and _is_arm(arm) for arm in arms),
        "metric": document["metric"] == METRIC,
        "stopping": document["stopping"] == STOPPING,
        "margin": document["margin"] > 0,
        "fields": all(isinstance(words, list) for words in flatten(document.get("fields", {})).values()),
    }
    return next((name for name, valid in checks.items() if not valid), None)


def _rising(numbers: Sequence[Any]) -> bool:
    return len(numbers) > 0 and all(isinstance(each, int) for each in numbers) and sorted(set(numbers)) == numbers


def _is_arm(arm: Mapping[str, Any]) -> bool:
    texts = all(isinstance(arm.get(name), str) for name in ("name", "title", "config"))
    return texts and all(isinstance(arm.get(name, {}), dict) for name in ("changes", "differs"))


def design_differences(before: Design, now: Design) -> list[str]:
    """One phrase for each entry that differs: `margin: 2.0 instead of 1.0`."""
    old, new = (flatten(_by_name(each.document)) for each in (before, now))
    return [
        f"{name}: {new.get(name, 'nothing')} instead of {old.get(name, 'nothing')}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def _by_name(document: Mapping[str, Any]) -> dict[str, Any]:
    arms = document["arms"]
    return {**document, "order of arms": [arm["name"] for arm in arms], "arms": {arm["name"]: arm for arm in arms}}
