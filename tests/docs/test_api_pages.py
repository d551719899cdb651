"""The pages of the API: their examples run, and they show no internals."""

import re

import pytest

from tests.cli.command_line import ROOT

PAGES = ROOT / "docs" / "api"


@pytest.mark.parametrize("name", ["data", "functional", "plan", "training"])
@pytest.mark.usefixtures("prepared_digits")
def test_a_page_starts_with_an_example_that_runs(name, capsys):
    before, example, _ = re.split(r"```python\n|```\n", (PAGES / f"{name}.md").read_text(), maxsplit=2)
    assert ":::" not in before
    exec(compile(example, f"{name}.md", "exec"), {})
    if name == "training":
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["50%", "O", "2155"]


def test_the_pages_of_the_core_show_no_internals():
    text = "".join(page.read_text() for page in PAGES.glob("*.md"))
    for module in ("training.session", "training.epoch", "training.saving", "training.programs", "functional.checks"):
        assert f"::: stepwise_jax.{module}" not in text
