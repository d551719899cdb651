"""Writes blocks as one self-contained HTML file, as Markdown, and their pictures beside both."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.report.blocks import Block, Folded, ImageGrid, Picture
from stepwise_jax.report.page.html_page import to_html
from stepwise_jax.report.page.markdown_page import image_file, to_markdown


def write_page(blocks: Sequence[Block], out: Path) -> Path:
    """Write `report.md`, `report.html`, each picture as PNG and SVG, and each small image as PNG.

    Returns:
      The path of `report.html`.

    Raises:
      InputError: if the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in _files(blocks):
            (out / name).write_bytes(content)
        # File names may contain bytes that are not text: a question mark replaces them.
        (out / "report.md").write_bytes(to_markdown(blocks).encode(errors="replace"))
        (out / "report.html").write_bytes(to_html(blocks).encode(errors="replace"))
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
    return out / "report.html"


def _files(blocks: Sequence[Block]) -> Iterator[tuple[str, bytes]]:
    """The files beside a page, by name."""
    for block in blocks:
        match block:
            case Picture(name=name, png=png, svg=svg):
                yield from ((f"{name}.png", png), (f"{name}.svg", svg))
            case ImageGrid(items, name):
                yield from ((image_file(name, number), image) for number, (image, _) in enumerate(items, start=1))
            case Folded(blocks=inner):
                yield from _files(inner)
            case _:
                pass
