"""Writes blocks as Markdown and as one self-contained HTML file."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.report.blocks import (
    Block,
    Heading,
    ImageGrid,
    Notes,
    Paragraph,
    Picture,
    PicturePanel,
    Table,
    Verdict,
)


def write_page(blocks: Sequence[Block], out: Path) -> Path:
    """Write `report.md`, `report.html`, and each picture as PNG and SVG.

    Returns:
      The path of `report.html`.

    Raises:
      InputError: if the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for block in blocks:
            if isinstance(block, Picture):
                (out / f"{block.name}.png").write_bytes(block.png)
                (out / f"{block.name}.svg").write_bytes(block.svg)
        # File names may contain bytes that are not text: a question mark replaces them.
        (out / "report.md").write_bytes(to_markdown(blocks).encode(errors="replace"))
        (out / "report.html").write_bytes(to_html(blocks).encode(errors="replace"))
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
    return out / "report.html"


def to_markdown(blocks: Sequence[Block]) -> str:
    """Return the page as Markdown, which links to the pictures beside it."""
    return "\n\n".join(filter(None, map(_block_markdown, blocks))) + "\n"


def _block_markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Verdict(text):
            return f"**{_plain(text)}**"
        case Notes(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Picture(name, description):
            return f"![{_plain(description)}]({name}.png)"
        case Table(header, rows, prose):
            rule = ("---", *("---" if prose else "---:" for _ in header[1:]))
            cells = [[_plain(cell) for cell in row] for row in (header, *rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))
        case ImageGrid():
            return ""


def _plain(text: str) -> str:
    """Escape the characters that have a meaning in Markdown."""
    escaped = re.sub(r"([\\`*_\[\]<>|~#&$])", r"\\\1", " ".join(text.split()))
    # A dash, a plus or a number with a period would start a list, and a line of dashes or equals signs is a rule.
    return re.sub(r"^(\d*)([-+.)=])(?=\s|$|[-=])", r"\1\\\2", escaped)


def to_html(blocks: Sequence[Block]) -> str:
    """Return the page as one self-contained HTML file."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(map(_block_html, blocks))
    # The body first, then the title, which comes before it: inserted text is never searched for a placeholder.
    return _HTML.replace("BODY", body, 1).replace("TITLE", html.escape(title), 1)


def _block_html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Verdict(text):
            return f'<p class="verdict">{html.escape(text)}</p>'
        case Notes(items):
            return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"
        case Picture(panels=panels):
            return f'<div class="pictures">{"".join(map(_panel_html, panels))}</div>'
        case ImageGrid(items):
            return f'<div class="samples">{"".join(_image_html(*item) for item in items)}</div>'
        case Table():
            return _table_html(block)


def _table_html(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in table.rows
    )
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>"
    # A table that scrolls must be focusable by keyboard.
    return (
        f'<div class="table" tabindex="0"><table class="{"prose" if table.prose else "numbers"}">{inner}</table></div>'
    )


def _panel_html(panel: PicturePanel) -> str:
    return (
        "<figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_inlined(panel.dark, "svg+xml")}">'
        f'<img alt="{html.escape(panel.description)}" src="{_inlined(panel.light, "svg+xml")}"></picture></figure>'
    )


def _image_html(image: bytes, caption: str) -> str:
    source = _inlined(image, "png")
    return f'<figure><img alt="" src="{source}"><figcaption>{html.escape(caption)}</figcaption></figure>'


def _inlined(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>TITLE</title>
<style>
:root { --ink: #24292f; --paper: #ffffff; --line: #d0d7de; --band: #f3f5f8; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #15191f; --line: #3d444d; --band: #1c222a; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 84rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; padding-bottom: .5rem;
  border-bottom: 3px solid var(--accent); }
h2 { font-size: 1.25rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; border-bottom-width: 2px; }
tbody th { font-weight: 600; }
tbody tr:nth-child(even) { background: var(--band); }
.numbers th + th, .numbers td { text-align: right; }
.numbers td, .numbers tbody th { white-space: nowrap; }
.prose td { min-width: 11rem; }
.verdict { max-width: 60rem; margin: 1rem 0 1.5rem; padding: .75rem 1rem; border-left: 4px solid var(--accent);
  background: var(--band); font-size: 1.1rem; }
ul { max-width: 60rem; padding-left: 1.25rem; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem; }
.samples img { width: 6rem; height: 6rem; object-fit: contain; image-rendering: pixelated; background: var(--band); }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .25rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; }
.pictures { margin: 1rem 0; }
.pictures > figure { max-width: 38rem; }
.pictures > figure:only-child { max-width: none; }
figure img { display: block; width: 100%; height: auto; }
.pictures > figure:only-child img { width: auto; max-width: 100%; }
</style>
</head>
<body>
<main>
BODY
</main>
</body>
</html>
"""
