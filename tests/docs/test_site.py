"""What the site's builder does not check: its navigation, its pictures, and that it fetches nothing."""

import re

import pytest

from tests.cli.command_line import ROOT

PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md"))
STYLE = ROOT / "docs" / "assets" / "extra.css"
CONFIGURATION = (ROOT / "mkdocs.yml").read_text()


def test_every_page_is_in_the_navigation():
    named = re.findall(r"[\w/]+\.md", CONFIGURATION.partition("\nnav:\n")[2].partition("\nmarkdown_extensions:")[0])
    assert sorted(named) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_pictures_of_a_page_exist_and_have_a_dark_form(page):
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text())
    for name in pictures:
        picture = page.parent / name
        if name.startswith("https://") or "/actions/" in name:
            continue
        assert picture.is_file()
        # A PNG has its dark form from the site's style.
        form = picture if picture.suffix == ".svg" else STYLE
        assert re.search(rf'prefers-color-scheme: ?dark\)[^@]*(svg|img\[src\$="{picture.suffix}"\])', form.read_text())


def test_the_search_needs_no_network():
    # The plugin `offline` takes this file in place of one from the network: by its name.
    assert "polyfills:\n    - assets/iframe-worker.js\n" in CONFIGURATION
    assert (ROOT / "docs" / "assets" / "iframe-worker.js").is_file()


def test_the_paths_of_the_contributors_page_exist():
    named = re.findall(
        r"`((?:stepwise_jax|models|examples|benchmarks|docs|tests)/[\w/.]*)`", (ROOT / "CONTRIBUTING.md").read_text()
    )
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_no_page_shows_a_formula_as_it_is_typed():
    # A subscript outside of code, such as M_1 or λ_i.
    typed = {
        page.name: found
        for page in [ROOT / "README.md", *PAGES]
        if (found := re.findall(r"(?<![\w./-])[A-Za-zλ]_(?:\{?\w{1,2}\b|simple|noise)", prose(page.read_text())))
    }
    assert typed == {}


def prose(text: str) -> str:
    """A page without code, links' targets and HTML."""
    return re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|<[^>]*>", " ", text, flags=re.DOTALL)
