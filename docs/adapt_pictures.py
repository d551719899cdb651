"""Give a picture of a report (SVG) a dark form: its colours follow the reader's light or dark page.

Usage: python docs/adapt_pictures.py FILE OUT
"""

import pathlib
import sys
from collections.abc import Mapping

from stepwise_jax.report.figures import DARK_COLORS, LIGHT


def adapt(drawing: str, dark: Mapping[str, str], ink: str = LIGHT.foreground) -> str:
    """Return an SVG whose colours `dark` replaces on a dark page; text without a colour has that of `ink`."""
    names = {light: f"--c{index}" for index, light in enumerate(dark)}
    values = {"light": "", "dark": ""}
    for light, name in names.items():
        drawing = drawing.replace(light, f"var({name})")
        values["light"] += f"{name}:{light};"
        values["dark"] += f"{name}:{dark[light]};"
    colours = f"svg{{{values['light']}fill:var({names[ink]})}}"
    style = f"<style>{colours}@media(prefers-color-scheme:dark){{svg{{{values['dark']}}}}}</style>"
    return drawing.replace("<defs>", f"{style}\n <defs>", 1)


def main(file: str, out: str) -> None:
    """Write the adapted picture."""
    pathlib.Path(out).write_text(adapt(pathlib.Path(file).read_text(), DARK_COLORS))


if __name__ == "__main__":
    main(*sys.argv[1:])
