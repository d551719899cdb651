"""Markdown and HTML have the same content, and text in blocks is never interpreted as markup."""

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.report import rendering
from stepwise_jax.report.blocks import Heading, ImageGrid, Notes, Paragraph, Picture, PicturePanel, Table, Verdict

TITLE = Heading("A page", level=1)
PICTURE = Picture(
    "bars",
    "two bars",
    (PicturePanel("left", b"<svg>1", b"<svg>2"), PicturePanel("right", b"<svg>3", b"<svg>4")),
    b"P",
    b"S",
)


def test_both_formats_have_every_block(tmp_path):
    blocks = (
        TITLE,
        Verdict("It holds."),
        Paragraph("Text."),
        Notes(("first", "second")),
        Table(("name", "value"), (("a", "1"),)),
        PICTURE,
        ImageGrid(((b"\x89PNG", "a caption"),)),
    )
    assert rendering.write_page(blocks, tmp_path / "new" / "out") == tmp_path / "new" / "out" / "report.html"
    markdown = (tmp_path / "new" / "out" / "report.md").read_text()
    assert markdown == (
        "# A page\n\n**It holds.**\n\nText.\n\n- first\n- second\n\n"
        "| name | value |\n| --- | ---: |\n| a | 1 |\n\n![two bars](bars.png)\n"
    )
    text = (tmp_path / "new" / "out" / "report.html").read_text()
    for word in ("A page", "It holds.", "Text.", "first", "second", "name", "value", "left", "right", "a caption"):
        assert word in text.split("<main>")[1], word
    assert (tmp_path / "new" / "out" / "bars.png").read_bytes() == b"P"
    assert (tmp_path / "new" / "out" / "bars.svg").read_bytes() == b"S"


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
