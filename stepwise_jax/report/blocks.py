"""The blocks of a report, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title of the page, and those of level 2 are its table of contents."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Verdict:
    """The conclusion of the page, displayed prominently."""

    text: str


@dataclass(frozen=True)
class Notes:
    """A bulleted list of plain text."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of plain text; all columns except the first are numbers unless `prose` is set."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    prose: bool = False
    colors: tuple[int, ...] = ()
    """The colour of each row's curve, as a place in the palette of `figures`; empty if rows have no curves."""
    details: tuple[str, ...] = ()
    """Small text below the first cell of each row; empty for none."""


@dataclass(frozen=True)
class Picture:
    """A figure for a light page; `png` and `svg` are written beside the page as `name`."""

    name: str
    description: str
    png: bytes
    svg: bytes
    curves: str = ""
    """The same curves as a JSON document, which the page's script draws in place of the picture; empty for none."""


@dataclass(frozen=True)
class ImageGrid:
    """A grid of small images (PNG) with captions; they are written beside the page as `name` and a number."""

    items: tuple[tuple[bytes, str], ...]
    name: str = "image"


@dataclass(frozen=True)
class Folded:
    """Blocks under a title that opens them; Markdown shows them all."""

    title: str
    blocks: tuple[Block, ...]


Block = Heading | Paragraph | Verdict | Notes | Table | Picture | ImageGrid | Folded
