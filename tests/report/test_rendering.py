"""Markdown and HTML have the same content, and text in blocks is never interpreted as markup."""

import base64
import dataclasses
import hashlib
import json
import re
from importlib import resources

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.report.blocks import (
    Folded,
    Heading,
    ImageGrid,
    Notes,
    Paragraph,
    Picture,
    Table,
    Verdict,
)
from stepwise_jax.report.page import rendering

TITLE = Heading("A page", level=1)
PICTURE = Picture("bars", "two bars", b"P", b"S")


def test_both_formats_have_every_block(tmp_path):
    blocks = (
        TITLE,
        Verdict("It holds."),
        Paragraph("Text."),
        Notes(("first", "second")),
        Table(("name", "value"), (("a", "1"),)),
        PICTURE,
        ImageGrid(((b"\x89PNG", "a caption"),), "shown"),
        Folded("More", (Paragraph("Inside."), ImageGrid(((b"X", "deep"),), "inner"))),
    )
    assert rendering.write_page(blocks, tmp_path / "new" / "out") == tmp_path / "new" / "out" / "report.html"
    markdown = (tmp_path / "new" / "out" / "report.md").read_text()
    assert markdown == (
        "# A page\n\n**It holds.**\n\nText.\n\n- first\n- second\n\n"
        "| name | value |\n| --- | ---: |\n| a | 1 |\n\n![two bars](bars.png)\n\n"
        "|   |\n| --- |\n| ![a caption](shown_01.png)<br>a caption |\n\n"
        "**More**\n\nInside.\n\n|   |\n| --- |\n| ![deep](inner_01.png)<br>deep |\n"
    )
    text = (tmp_path / "new" / "out" / "report.html").read_text()
    for word in (
        "A page",
        "It holds.",
        "Text.",
        "first",
        "second",
        "name",
        "value",
        "two bars",
        "a caption",
        "More",
        "Inside.",
    ):
        assert word in text.split("<main>")[1], word
    assert (tmp_path / "new" / "out" / "bars.png").read_bytes() == b"P"
    assert (tmp_path / "new" / "out" / "bars.svg").read_bytes() == b"S"
    assert (tmp_path / "new" / "out" / "shown_01.png").read_bytes() == b"\x89PNG"
    assert (tmp_path / "new" / "out" / "inner_01.png").read_bytes() == b"X"


def test_the_contents_link_to_every_section():
    sections = [Heading(text) for text in ("Curves", "A & B", "Curves", "猫")]
    page = rendering.to_html((TITLE, *sections, Heading("no section", level=3)))
    links, anchors = (re.findall(pattern, page) for pattern in (r'<a href="#([^"]+)">', r'<section id="([^"]+)"'))
    assert links == anchors == ["curves", "a-b", "curves-2", "section"]
    assert "A &amp; B</a>" in page


def test_only_the_scripts_of_the_curves_may_run():
    curves = dataclasses.replace(PICTURE, curves='{"lines":["</script><script>alert(1)"]}')
    page = rendering.to_html((TITLE, curves))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 2
    assert policy.endswith("script-src " + " ".join(f"'sha256-{each}'" for each in hashes))
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data) == {"lines": ["</script><script>alert(1)"]}
    assert "The above copyright notice and this permission notice shall be included" in page
    assert "script-src 'none'" in rendering.to_html((TITLE, PICTURE))
    assert "<script" not in rendering.to_html((TITLE, PICTURE))


def test_rows_have_the_colours_of_their_curves_and_small_text():
    table = Table(("name", "value"), (("a", "1"), ("b", "2")), colors=(0, 9), details=("first", ""))
    page = rendering.to_html((TITLE, table))
    assert '<i class="mark c0 d0"></i>a<small>first</small>' in page
    assert '<i class="mark c1 d1"></i>b' in page
    assert "| a: first | 1 |\n| b | 2 |" in rendering.to_markdown((table,))


def test_two_narrow_sections_stand_side_by_side_and_one_alone_is_wide():
    wide = Table(tuple("abcdefgh"), ())
    curves = dataclasses.replace(PICTURE, curves="{}")
    blocks = (TITLE, Heading("1"), curves, Heading("2"), Heading("3"), Heading("4"), wide, Heading("5"))
    page = rendering.to_html(blocks)
    assert re.findall(r'<section id="\d" class="(\w+)"', page) == ["wide", "half", "half", "wide", "wide"]


def test_the_vendored_library_is_the_one_that_its_note_names():
    assets = resources.files("stepwise_jax.report.page") / "assets"
    note = (assets / "README.md").read_text()
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        assert f"| `{name}` | {hashlib.sha256((assets / name).read_bytes()).hexdigest()} |" in note


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a_b*c", r"a\_b\*c"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("$x$ costs $2", r"\$x\$ costs \$2"),
        ("1. no list", r"1\. no list"),
        ("- no list", r"\- no list"),
        ("+ no list", r"\+ no list"),
        ("---", r"\---"),
        ("-5 points", "-5 points"),
        ("two\n\nlines", "two lines"),
    ],
)
def test_text_is_not_interpreted_as_markdown(text, written):
    assert rendering.to_markdown((Paragraph(text),)) == f"{written}\n"


def test_undecodable_characters_are_written_as_question_marks(tmp_path):
    path = rendering.write_page((Heading("run \udcff", level=1), Table(("field",), (("\udc80.py",),))), tmp_path)
    assert "<h1>run ?</h1>" in path.read_text()
    assert "| ?.py |" in path.with_suffix(".md").read_text()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .*file cannot be written"):
        rendering.write_page((TITLE,), tmp_path / "file")
