"""The cases of a comparison with PyTorch, and their table."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

from lane import Lane, log

OURS = ("run",)
TABLE = "compare_with_torch.md"
TORCH_VARIANTS = ("eager", "channels_last", "compiled")
REFERENCE = (
    "For reference, published and not measured here: NVIDIA's DeepLearningExamples train ResNet-50 v1.5 with PyTorch "
    "and AMP at 2,470 images/s on one A100-80G."
)

Key = tuple[str, str]
"""A library and a variant of its step."""


@dataclass
class Case:
    """One network at one batch size: the times of each variant of each side."""

    network: str
    batch_size: int
    lanes: InitVar[Sequence[Lane]] = ()
    """The network's processes, after their preparation."""
    ready: dict[Key, Lane] = field(default_factory=dict)
    """Which process has a variant."""
    steps: dict[Key, int] = field(default_factory=dict)
    """Steps in a turn of each variant."""
    prepared: dict[Key, float] = field(default_factory=dict)
    rounds: list[dict[Key, dict[str, float]]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self, lanes: Sequence[Lane]):
        for lane in lanes:
            for job in (job for job in lane.jobs if job[0] == self.batch_size):
                key = (lane.library, job[1])
                if job in lane.ready:
                    self.ready[key], self.prepared[key] = lane, lane.ready[job]
                else:
                    self.errors[name(key)] = lane.errors[job]

    def row(self) -> dict[str, Any]:
        """Medians over the rounds, and the ratios to ours."""
        ours = ("jax", "run")
        done = {key for turns in self.rounds for key in turns}
        variants = {name(key): self._medians(key) for key in self.steps if key in done}
        ratios = {
            kind: {
                variant: statistics.median(turns["torch", variant][kind] / turns[ours][kind] for turns in whole)
                for variant in TORCH_VARIANTS
                if (whole := [turns for turns in self.rounds if {ours, ("torch", variant)} <= turns.keys()])
            }
            for kind in ("wall", "cpu")
        }
        return {
            "network": self.network,
            "batch_size": self.batch_size,
            "rounds": len(self.rounds),
            "variants": variants,
            "ratios": ratios["wall"],
            "cpu_ratios": ratios["cpu"],
            "errors": self.errors,
        }

    def _medians(self, key: Key) -> dict[str, float]:
        taken = [turns[key] for turns in self.rounds if key in turns]
        wall, cpu = (statistics.median(each[kind] for each in taken) for kind in ("wall", "cpu"))
        return {
            "images_per_second": self.batch_size / wall,
            "milliseconds": 1000 * wall,
            "least_milliseconds": 1000 * min(each["wall"] for each in taken),
            "cpu_milliseconds": 1000 * cpu,
            "prepare_seconds": self.prepared[key],
        }


def name(key: Key) -> str:
    """The name of a variant in the tables."""
    return "ours" if key[0] == "jax" else key[1]


def table(document: dict[str, Any]) -> str:
    """The comparison in Markdown: speeds, then ratios; on a CPU the ratio of CPU seconds in brackets."""
    shown = ["ours", *TORCH_VARIANTS]
    head = ["network", "batch", *(f"{each.replace('_', '-')}, images/s" for each in shown)]
    head += [f"ratio to {each.replace('_', '-')}" for each in TORCH_VARIANTS]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in document["rows"]:
        speeds = [
            f"{row['variants'][each]['images_per_second']:,.0f}" if each in row["variants"] else "–" for each in shown
        ]
        ratios = [_ratio(row, each, document["device"] == "cpu") for each in TORCH_VARIANTS]
        lines.append(f"| {' | '.join([row['network'], str(row['batch_size']), *speeds, *ratios])} |")
    return "\n".join(lines)


def _ratio(row: dict[str, Any], variant: str, with_cpu: bool) -> str:
    if variant not in row["ratios"]:
        return "–"
    of_cpu = f" ({row['cpu_ratios'][variant]:.2f})" if with_cpu else ""
    return f"{row['ratios'][variant]:.2f}{of_cpu}"


def report(document: dict[str, Any]) -> str:
    """The table, with the setting above it and the missing cases below."""
    versions = ", ".join(f"{each} {version}" for each, version in document.get("versions", {}).items())
    side = document["image_size"]
    setting = f"{document.get('device', 'no device')}, {side} x {side}, {document['precision']}, {document['date']}"
    texts = [f"{setting}, {versions}; {document['seconds']:.0f} s", table(document) if document["rows"] else ""]
    failures = [
        f"{row['network']} at batch {row['batch_size']}, {variant}: {why}"
        for row in document["rows"]
        for variant, why in row["errors"].items()
    ]
    texts += ["Failed: " + "; ".join(failures)] if failures else []
    texts += ["Left out: " + "; ".join(document["left_out"])] if document["left_out"] else []
    texts += [REFERENCE] if document.get("device") != "cpu" else []
    return "\n\n".join(text for text in texts if text)


def unwritable_reason(out: Path) -> str:
    """Makes the folder; returns why nothing can be written there, or an empty text."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / TABLE).touch()
    except OSError as error:
        return f"{error.strerror}"
    return ""


def keep(document: dict[str, Any], out: Path | None) -> None:
    """Writes the results so far. A full disk is reported, and costs nothing else."""
    if not out or "rows" not in document:
        return
    try:
        (out / "compare_with_torch.json").write_text(json.dumps(document, indent=2) + "\n")
        if "device" in document:
            (out / TABLE).write_text(report(document) + "\n")
    except OSError as error:
        log(f"{out} was not written: {error.strerror}")
