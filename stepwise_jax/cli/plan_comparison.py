"""`plan --compare`: several plans beside the baseline, in one table and one picture."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.config_files import load_rows
from stepwise_jax.plans.planning import make_plan, plan_to_dict
from stepwise_jax.plans.registry import shown_strategies
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime.files import check_output

Stages = Sequence[Stage]


def check_options(options: argparse.Namespace) -> None:
    """Check `--compare`, `--out` and `--memory`.

    Raises:
      InputError: for a picture that cannot be written, or options that do not go together.
    """
    if options.compare is not None and options.memory:
        raise InputError("--memory: it measures one plan: leave out --compare")
    if options.out:
        drawable = options.out.suffix in (".png", ".svg") and not options.out.is_dir()
        require(drawable, "--out", str(options.out), "a file that ends with .png or .svg")
        require(options.out.parent.is_dir(), "--out", str(options.out), "in a folder that exists")
        check_output("--out", options.out)


def plan_baseline(experiment: ExperimentConfig, examples: int) -> tuple[Stage, ...]:
    """The stages of the baseline of an experiment."""
    one_stage = {"fractions": (1.0,), "batch_multipliers": (1.0,), "image_sizes": None, "microbatches": None}
    plan = dataclasses.replace(experiment.plan, strategy="baseline", **one_stage)
    return make_plan(plan, examples, experiment.optimizer)


def compare_plans(
    options: argparse.Namespace, fields: Sequence[str], baseline: Stages, examples: int
) -> dict[str, Any]:
    """The document of `plan --compare --json`: the plans of `options.compare`; writes their picture.

    Args:
      options: of the command line.
      fields: `--FIELD VALUE` words for all plans.
      baseline: the stages that costs are relative to.
      examples: M.
    """
    from stepwise_jax.cli.comparisons.request import load_arms
    from stepwise_jax.data import datasets
    from stepwise_jax.studies import comparison

    names = shown_strategies() if options.compare == ("all",) else options.compare
    arms = comparison.named_arms(names, options.config, load_rows(options.config), "--compare")
    experiments = load_arms(arms, fields)
    sizes = {name: datasets.sizes(each.data).train for name, each in experiments.items()}
    plans = comparison.make_plans(experiments, sizes)
    if options.out:
        write_picture(options.out, plans, baseline, examples)
    rows = {arm.name: {"title": arm.title, **plan_to_dict(plans[arm.name], baseline)} for arm in arms}
    costs = [row.pop("baseline") for row in rows.values()]
    return {"examples": examples, "baseline": costs[0], "plans": [{"name": name, **row} for name, row in rows.items()]}


def write_picture(path: Path, plans: Mapping[str, Stages], baseline: Stages, examples: int) -> None:
    """Write the picture of some plans and the baseline, by the ending of its name."""
    from stepwise_jax.report.figures import LIGHT, render
    from stepwise_jax.report.plan_figure import plans_figure

    draw = plans_figure(plans, baseline, examples)
    path.write_bytes(render(draw, "png" if path.suffix == ".png" else "svg", LIGHT))
