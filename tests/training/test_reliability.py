"""Two pages name a test for each promise: each must be there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("reliability.md", "inputs.md")}
NAMED = sorted({named for page in PAGES.values() for named in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)})


def promises(name: str) -> list[str]:
    """The rows of a page's tables whose last column is "tested by"."""
    tables = re.findall(r"^\|.*\| tested by \|\n\|[-|]+\n((?:\|.*\n)+)", PAGES[name], flags=re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


@pytest.mark.parametrize(("name", "least"), [("reliability.md", 40), ("inputs.md", 70)])
def test_every_promise_names_its_tests(name, least):
    assert len(promises(name)) > least
    assert [row for row in promises(name) if not re.search(r"`tests/[\w/]+\.py::\w+`", row.split("|")[3])] == []


def test_no_promise_stands_on_two_pages():
    cases = [row.split("|")[1] for name in PAGES for row in promises(name)]
    assert len(cases) == len(set(cases))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_named_test_exists(file, name):
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
