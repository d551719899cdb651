"""Every command that a page shows is one that the program takes, with fields that the experiment has."""

import re
import shlex

import pytest

from stepwise_jax.cli.main import COMMANDS
from stepwise_jax.cli.parsing.arguments import make_parser
from stepwise_jax.cli.parsing.overrides import load_experiment
from tests.cli.command_line import ROOT


def shown_commands() -> list[tuple[str, str]]:
    """Pages and the commands in their blocks, without the synopses, whose words stand for others."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line) for line in lines if line.startswith("python launch.py ")]
    return [(page, line) for page, line in found if not re.search(r"\[|\.\.\.|\$| \| ", line)]


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_a_shown_command_is_one(page, line):
    words = shlex.split(line, comments=True)[2:]
    # A design names its configuration.
    words = [words[0], "", *words[1:]] if "--design" in words else words
    options, fields = make_parser({each.__name__: each for each in COMMANDS}).parse_known_args(words)
    config = getattr(options, "config", "")
    if not config:
        # Beside a design, only where the data are may be said.
        assert {word for word in fields if word.startswith("--")} <= {"--data.root", "--data.data_dir"}
    elif not config.startswith("examples/own"):
        # What stands for a path or a place is taken as it is.
        config = str(ROOT / config) if config.endswith(".py") or ".py:" in config else "digits"
        load_experiment(config, [word.replace("PLACEMENT", "resident") for word in fields], options.command)
