"""Draw schedules-*.svg: data, batch size, learning rate and noise scale of the schedules of docs/schedules.md.

Usage: python docs/draw_schedules.py
"""

import pathlib

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.registry import with_strategy
from stepwise_jax.plans.stage import Stage
from stepwise_jax.report.figures import Theme, render
from stepwise_jax.report.plan_figure import plans_figure

EXAMPLES = 50_000  # CIFAR-100; every other value is the paper's and a default of PlanConfig
PICTURES = {
    "data": ("stepwise", "pacing:linear", "pacing:root", "pacing:quadratic", "pacing:logarithmic", "falling"),
    "batches": ("batch_growth", "adabatch", "seesaw", "seesaw:cosine", "critical_batch_warmup", "linear_ramp"),
    "rates": ("equal_samples", "equal_samples_rate_curve", "cosine", "batch_only", "progressive_size:128:224"),
}
INK = "#010203"
# The drawing's colour of text and lines follows the reader's light or dark page; the others are readable on both.
STYLE = "<style>svg{color:#24292f}@media(prefers-color-scheme:dark){svg{color:#d8dee4}}</style>"
PALETTE = ("#2f86cc", "#d95f02", "#1a9e77", "#c45a9b", "#a6761d", "#7a6fd0")
THEME = Theme("none", INK, "#8b949e", "none", PALETTE)


def planned(strategy: str) -> tuple[Stage, ...]:
    """The stages of a strategy at the paper's values."""
    return make_plan(with_strategy(PlanConfig(), strategy), EXAMPLES)


def main() -> None:
    """Draw the pictures and write the files."""
    for name, strategies in PICTURES.items():
        figure = plans_figure({each: planned(each) for each in strategies}, planned("baseline"), EXAMPLES)
        drawing = render(figure, "svg", THEME).decode().replace(INK, "currentColor")
        file = pathlib.Path(__file__).with_name(f"schedules-{name}.svg")
        file.write_text(drawing.replace("<defs>", f"{STYLE}\n <defs>", 1))


if __name__ == "__main__":
    main()
