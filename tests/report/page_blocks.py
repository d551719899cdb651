"""Looks up blocks of a page."""

from stepwise_jax.report.blocks import Block, Heading


def headings(blocks) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Heading)]


def after(blocks: tuple[Block, ...] | list[Block], text: str, kind: type) -> Block:
    """The first block of a kind after a heading."""
    index = next(i for i, block in enumerate(blocks) if isinstance(block, Heading) and block.text == text)
    return next(block for block in blocks[index:] if isinstance(block, kind))
