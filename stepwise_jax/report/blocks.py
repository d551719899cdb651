"""The blocks that a report consists of, as plain data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's own."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Verdict:
    """What the page says, in a sentence that stands out."""

    text: str


@dataclass(frozen=True)
class Notes:
    """A list of plain texts."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of plain text; all columns but the first are numbers unless `prose`."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    prose: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture, drawn for a light and for a dark page (SVG)."""

    description: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Picture:
    """Panels side by side; `png` and `svg` hold all of them and are written beside the page under `name`."""

    name: str
    description: str
    panels: tuple[Panel, ...]
    png: bytes
    svg: bytes


@dataclass(frozen=True)
class Images:
    """A grid of small images (PNG) with captions; Markdown leaves them out."""

    items: tuple[tuple[bytes, str], ...]


Block = Heading | Paragraph | Verdict | Notes | Table | Picture | Images
