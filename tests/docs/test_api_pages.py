"""The pages of the API: their examples run, and they show no internals."""

import re

import pytest

from tests.cli.command_line import ROOT

PAGES = ROOT / "docs" / "api"


@pytest.fixture
def demo(folder_run, tmp_path, monkeypatch):
    """A folder with a run and a photograph, as the examples name them."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(folder_run / "run")
    (tmp_path / "photo.jpg").symlink_to(next((folder_run / "images" / "test").rglob("*.*")))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", sorted(page.stem for page in PAGES.glob("*.md")))
@pytest.mark.usefixtures("prepared_digits", "demo")
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
