"""The page on schedules: its tables are what the code says, and its example is a schedule."""

import dataclasses
import re
from typing import Any

import launch
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.budget import follow_rates
from stepwise_jax.plans.controls import equal_samples
from stepwise_jax.plans.parameters import describe_parameters
from stepwise_jax.plans.registry import STRATEGIES
from stepwise_jax.plans.stage import Stage
from tests.cli.command_line import CIFAR100, ROOT

PAGE = (ROOT / "docs" / "schedules.md").read_text()


def test_the_table_of_costs_is_what_its_command_prints(capsys):
    command, printed = re.findall(r"```sh\n([^\n]*--compare all)\n```\n\n```text\n(.*?)```", PAGE, re.DOTALL)[0]
    assert command == "python launch.py plan configs/cifar100_resnet50.py --compare all"
    assert launch.main(["plan", CIFAR100, "--compare", "all"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert printed.splitlines() == lines
    assert max(map(len, lines)) <= 80


def test_the_table_of_schedules_is_the_registry():
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")
    ]
    expected = [
        [name, each.title, describe_parameters(each.function).removeprefix(":")] for name, each in STRATEGIES.items()
    ]
    assert [row[:3] for row in rows] == expected


def test_the_pictures_are_there():
    pictures = re.findall(r"!\[.*\]\((.*\.svg)\)", PAGE)
    assert len(pictures) == 3
    assert all("currentColor" in (ROOT / "docs" / name).read_text() for name in pictures)


def test_the_example_is_a_schedule_of_its_budget():
    example = next(code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def doubling" in code)
    names = {"dataclasses": dataclasses, "follow_rates": follow_rates, "equal_samples": equal_samples}
    scope: dict[str, Any] = {}
    exec(example, names | {"PlanConfig": PlanConfig, "Stage": Stage}, scope)
    stages = scope["doubling"](PlanConfig(), 50_000)
    assert [(stage.batch_size, stage.epochs) for stage in stages] == [(24, 15), (48, 15), (96, 15), (192, 15)]
