"""Draw schedule.svg: data, batch size, learning rate and noise scale of the paper's plan and of its baseline.

Usage: python docs/draw_schedule.py
"""

import io
import pathlib
from typing import NamedTuple

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale

EXAMPLES = 50_000  # CIFAR-100; every other value is the paper's and a default of PlanConfig
INK, STAGED, BASELINE = "#010203", "#2f86cc", "#d95f02"
# The drawing's colour of text and lines follows the reader's light or dark page.
STYLE = "<style>svg{color:#24292f}@media(prefers-color-scheme:dark){svg{color:#d8dee4}}</style>"


class Epoch(NamedTuple):
    """The drawn values of one epoch."""

    end: float
    """Planned samples until its end, in units of M."""
    percent: float
    """M_i of M."""
    batch_size: float
    learning_rate: float
    noise_scale: float


PANELS = {
    "percent": "data\n$M_i$ (% of M)",
    "batch_size": "batch size\n$b_i$",
    "learning_rate": "learning rate\n$\\lambda_i$",
    "noise_scale": "noise scale\n$G_i=\\lambda_i M_i/b_i$",
}


def planned(strategy: str) -> tuple[Stage, ...]:
    """The stages of the paper's plan, or of its baseline."""
    return make_plan(PlanConfig(strategy=strategy), EXAMPLES)


def epochs_of(stages: tuple[Stage, ...]) -> list[Epoch]:
    """Every epoch of a plan."""
    epochs, done = [], 0
    for stage in stages:
        for epoch in range(1, stage.epochs + 1):
            done += stage.examples
            rate = learning_rate_at(stage, epoch)
            scale = noise_scale(stage, rate)
            epochs.append(Epoch(done / EXAMPLES, 100 * stage.fraction, stage.batch_size, rate, scale))
    return epochs


def draw(axes: Axes, name: str, epochs: list[Epoch], colour: str, label: str, line: str) -> None:
    """One quantity of one plan, as steps."""
    edges = [0.0, *(epoch.end for epoch in epochs)]
    values = [getattr(epoch, name) for epoch in epochs]
    axes.stairs(values, edges, baseline=None, color=colour, label=label, linestyle=line, linewidth=1.6)


def mark_stages(axes: Axes, stages: tuple[Stage, ...]) -> None:
    """The names of the stages, each above its middle."""
    start = 0.0
    for stage in stages:
        end = start + stage.samples / EXAMPLES
        axes.text((start + end) / 2, 1.04, stage.name, transform=axes.get_xaxis_transform(), ha="center", color=STAGED)
        start = end


def main() -> None:
    """Draw the four panels and write the file."""
    plt.rc("font", size=9)
    plt.rc("text", color=INK)
    plt.rc("axes", edgecolor=INK, labelcolor=INK)
    plt.rc("xtick", color=INK)
    plt.rc("ytick", color=INK)
    plt.rc("svg", hashsalt="schedule")  # the same file from every run
    staged, baseline = planned("stepwise"), planned("baseline")
    figure, axes = plt.subplots(4, 1, figsize=(8, 7.5), sharex=True)
    for panel, (name, title) in zip(axes, PANELS.items(), strict=True):
        draw(panel, name, epochs_of(baseline), BASELINE, "baseline", "--")
        draw(panel, name, epochs_of(staged), STAGED, "step-wise", "-")
        panel.set_ylabel(title)
        panel.grid(alpha=0.25, color=INK)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(0, 108)
    axes[1].set_ylim(0, 104)
    axes[2].set_yscale("log")
    axes[3].set_yscale("log")
    axes[3].set_xlabel("samples planned, in units of the training set (M)")
    axes[0].legend(frameon=False, loc="lower right")
    mark_stages(axes[0], staged)
    figure.align_ylabels()
    figure.tight_layout()
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    drawing = written.getvalue().replace(INK, "currentColor").replace("<defs>", f"{STYLE}\n <defs>", 1)
    pathlib.Path(__file__).with_name("schedule.svg").write_text(drawing)


if __name__ == "__main__":
    main()
