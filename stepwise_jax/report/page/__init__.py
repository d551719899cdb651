"""One page, as HTML and as Markdown."""
