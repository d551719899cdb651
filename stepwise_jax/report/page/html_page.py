"""Blocks as one HTML file that carries its pictures, style and script, and loads nothing."""

import base64
import hashlib
import html
import itertools
import re
from collections.abc import Iterator, Sequence
from importlib import resources

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
from stepwise_jax.report.figures import DARK, LIGHT, Theme, in_dark

_NARROW_TABLE = 6
"""Up to this many columns, a table leaves space for something beside it on a wide screen."""

_NARROW_CELL = 150
"""Up to this many characters, a cell does too."""

_SHORT_NAME = 20
"""Up to this many characters, a row's name stays on one line."""

_LONG_WORD = 16
"""Characters from which on a word may need more than one line."""


def to_html(blocks: Sequence[Block]) -> str:
    """Return the page as one self-contained HTML file; level-2 headings start its sections."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    opening, *sections = _split(blocks)
    anchors = _anchors([_title(section) for section in sections])
    body = [
        f'<header class="opening">{_joined(opening)}</header>',
        _contents([_title(section) for section in sections], anchors),
        *(_section(*each) for each in zip(sections, anchors, _widths(sections), strict=True)),
    ]
    return _document(title, "\n".join(body), scripted=any(_has_curves(block) for block in blocks))


def _split(blocks: Sequence[Block]) -> list[list[Block]]:
    """The blocks before the first heading of level 2, then the blocks of each section."""
    parts: list[list[Block]] = [[]]
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            parts.append([])
        parts[-1].append(block)
    return parts


def _title(section: Sequence[Block]) -> str:
    return section[0].text if isinstance(section[0], Heading) else ""


def _anchors(titles: Sequence[str]) -> list[str]:
    """A name for each section, to link to: `accuracy-by-class`; later ones of the same name get a number."""
    anchors: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        anchors.append(next(each for each in itertools.chain([name], numbered) if each not in anchors))
    return anchors


def _contents(titles: Sequence[str], anchors: Sequence[str]) -> str:
    links = (f'<li><a href="#{anchor}">{_text(title)}</a></li>' for title, anchor in zip(titles, anchors, strict=True))
    return f'<nav aria-label="Contents"><p>On this page</p><ul>{"".join(links)}</ul></nav>' if titles else ""


def _section(blocks: Sequence[Block], anchor: str, width: str) -> str:
    return f'<section id="{anchor}" class="{width}">{_joined(blocks)}</section>'


def _widths(sections: Sequence[Sequence[Block]]) -> list[str]:
    """Of each section, `half` where two stand side by side on a wide screen, and `wide` otherwise."""
    widths: list[str] = []
    for wide, group in itertools.groupby(sections, lambda section: any(map(_is_wide, section))):
        count = len(list(group))
        # One that would stand alone has the whole width.
        alone = count if wide else count % 2
        widths += ["wide"] * alone + ["half"] * (count - alone)
    return widths


def _is_wide(block: Block) -> bool:
    """Whether a block needs the whole width of a wide screen."""
    match block:
        case Table(header=header, rows=rows):
            longest = max((len(cell) for row in rows for cell in row), default=0)
            return len(header) > _NARROW_TABLE or longest > _NARROW_CELL
        case Picture(curves=curves):
            return bool(curves)
        case ImageGrid():
            return True
        case _:
            return False


def _has_curves(block: Block) -> bool:
    return bool(isinstance(block, Picture) and block.curves)


def _joined(blocks: Sequence[Block]) -> str:
    parts: list[str] = []
    for before, block in zip((None, *blocks), blocks, strict=False):
        if isinstance(block, Table) and isinstance(before, Picture) and not (_is_wide(before) or _is_wide(block)):
            # A figure and the table of its numbers stand side by side where there is space.
            parts[-1] = f'<div class="pair">{parts[-1]}{_block(block)}</div>'
        else:
            parts.append(_block(block))
    return "\n".join(parts)


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_text(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_text(text)}</p>"
        case Verdict(text):
            return f'<p class="verdict">{_text(text)}</p>'
        case Notes(items):
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>"
        case Picture():
            return _picture(block)
        case ImageGrid(items=items):
            return f'<div class="samples">{"".join(_image(*item) for item in items)}</div>'
        case Table():
            return _table(block)
        case Folded(title, inner):
            return f"<details><summary>{_text(title)}</summary>{_joined(inner)}</details>"


def _text(text: str) -> str:
    """Escape a text; let long names break after their marks, and keep a number with its per cent sign."""

    def breakable(word: re.Match[str]) -> str:
        return re.sub(r"(?<=\w)([_/:=]|(?<=[^\W\d])\.)(?=\w)", r"\1<wbr>", word.group())

    whole = re.sub(r"(?<=\d) %", "&nbsp;%", html.escape(text))
    return re.sub(rf"\S{{{_LONG_WORD},}}", breakable, whole)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_heading(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row"{_kept_whole(row[0])}>{mark}{_text(row[0])}{detail}</th>'
        + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row, mark, detail in zip(table.rows, _marks(table), _details(table), strict=False)
    )
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>"
    # A table that scrolls must be focusable by keyboard.
    return (
        f'<div class="table" tabindex="0"><table class="{"prose" if table.prose else "numbers"}">{inner}</table></div>'
    )


def _heading(name: str) -> str:
    """A heading that breaks between words, but not within `top-1`."""
    return re.sub(r"\S+-\S+", r'<span class="whole">\g<0></span>', _text(name))


def _kept_whole(name: str) -> str:
    return ' class="short"' if len(name) <= _SHORT_NAME else ""


def _marks(table: Table) -> Iterator[str]:
    """A short line in the colour of each row's curve."""
    count = len(LIGHT.palette)
    marks = (f'<i class="mark c{place % count} d{place // count % 4}"></i>' for place in table.colors)
    return itertools.chain(marks, itertools.repeat(""))


def _details(table: Table) -> Iterator[str]:
    details = (f"<small>{_text(each)}</small>" if each else "" for each in table.details)
    return itertools.chain(details, itertools.repeat(""))


def _picture(picture: Picture) -> str:
    if not picture.curves:
        return f"<figure>{_both_forms(picture)}</figure>"
    # No text of a JSON document ends the element that holds it.
    data = picture.curves.replace("<", "\\u003c")
    # What scrolls must be focusable by keyboard.
    return (
        f'<div class="curves"><figure tabindex="0">{_both_forms(picture)}</figure>'
        f'<script type="application/json">{data}</script></div>'
    )


def _both_forms(picture: Picture) -> str:
    light, dark = (_inlined(content, "svg+xml") for content in (picture.svg, in_dark(picture.svg)))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{html.escape(picture.description)}" src="{light}"></picture>'
    )


def _image(image: bytes, caption: str) -> str:
    source = _inlined(image, "png")
    return f'<figure><img alt="" src="{source}"><figcaption>{_text(caption)}</figcaption></figure>'


def _inlined(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _document(title: str, body: str, scripted: bool) -> str:
    scripts = [_asset("uPlot.iife.min.js"), _asset("curves.js")] if scripted else []
    style = "\n".join([_colors(LIGHT, DARK), *([_asset("uPlot.min.css")] if scripted else []), _asset("page.css")])
    # Whatever a name may contain, only these scripts run, and nothing is loaded.
    hashes = (f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts)
    allowed = " ".join(hashes) or "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    return "\n".join([
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>",
        f"{body}\n</main>",
        *([f"<!-- uPlot\n{_asset('uPlot.LICENSE')}\n-->"] if scripted else []),
        *(f"<script>{script}</script>" for script in scripts),
        "</body>\n</html>\n",
    ])  # fmt: skip


def _asset(name: str) -> str:
    return resources.files("stepwise_jax.report.page").joinpath("assets", name).read_text(encoding="utf-8")


def _colors(light: Theme, dark: Theme) -> str:
    """The colours of the figures as variables of the style, for a light and for a dark page."""
    return f":root {{ {_variables(light)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {_variables(dark)} }} }}"


def _variables(theme: Theme) -> str:
    named = {"ink": theme.foreground, "paper": theme.background, "line": theme.muted, "band": theme.band}
    named |= {"accent": theme.palette[0]} | {f"c{place}": color for place, color in enumerate(theme.palette)}
    return " ".join(f"--{name}: {color};" for name, color in named.items())
