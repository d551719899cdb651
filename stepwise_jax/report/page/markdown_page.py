"""Blocks as Markdown, which links to the pictures beside it."""

import re
from collections.abc import Sequence

from stepwise_jax.report.blocks import (
    Block,
    Folded,
    Heading,
    ImageGrid,
    Notes,
    Paragraph,
    Picture,
    Table,
    Verdict,
)

_IMAGES_PER_ROW = 4


def to_markdown(blocks: Sequence[Block]) -> str:
    """Return the page as Markdown."""
    return _joined(blocks) + "\n"


def image_file(name: str, number: int) -> str:
    """Return the name of the file of a small image."""
    return f"{name}_{number:02d}.png"


def _joined(blocks: Sequence[Block]) -> str:
    return "\n\n".join(filter(None, map(_block, blocks)))


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Verdict(text):
            return f"**{_plain(text)}**"
        case Notes(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Picture(name=name, description=description):
            return f"![{_plain(description)}]({name}.png)"
        case Table():
            return _table(block)
        case ImageGrid():
            return _images(block)
        case Folded(title, inner):
            return f"**{_plain(title)}**\n\n{_joined(inner)}"


def _table(table: Table) -> str:
    rule = ("---", *("---" if table.prose else "---:" for _ in table.header[1:]))
    rows = [[_plain(cell) for cell in row] for row in (table.header, *table.rows)]
    for row, detail in zip(rows[1:], table.details, strict=False):
        row[0] += f": {_plain(detail)}" if detail else ""
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _images(grid: ImageGrid) -> str:
    """A table of images, a few in a row, with their captions below."""
    cells = [
        f"![{_plain(caption)}]({image_file(grid.name, number)})<br>{_plain(caption)}"
        for number, (_, caption) in enumerate(grid.items, start=1)
    ]
    columns = min(_IMAGES_PER_ROW, len(cells))
    rows = [cells[start : start + _IMAGES_PER_ROW] for start in range(0, len(cells), _IMAGES_PER_ROW)]
    lines = [[" "] * columns, ["---"] * columns, *(row + [" "] * (columns - len(row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines if cells)


def _plain(text: str) -> str:
    """Escape the characters that have a meaning in Markdown."""
    escaped = re.sub(r"([\\`*_\[\]<>|~#&$])", r"\\\1", " ".join(text.split()))
    # A dash, a plus or a number with a period would start a list, and a line of dashes or equals signs is a rule.
    return re.sub(r"^(\d*)([-+.)=])(?=\s|$|[-=])", r"\1\\\2", escaped)
