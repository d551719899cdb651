"""The page on reliability names a test for each promise: each must be there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_the_page_names_tests():
    assert len(NAMED) > 40
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and "---" not in line]
    assert all("::" in row for row in rows if row.count("|") == 4 and not re.match(r"\| (fault|file|status|\d+) ", row))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_named_test_exists(file, name):
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
