"""Reports in a real browser: wide and narrow, light and dark. Skipped where no Chromium is installed."""

import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run
from PIL import Image

from stepwise_jax.report.blocks import Heading, ImageGrid, Notes, Paragraph, Table, Verdict
from stepwise_jax.report.curves import draw_curves
from stepwise_jax.report.rendering import to_html
from stepwise_jax.report.series import group_series
from stepwise_jax.workdir.runs import read_runs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

# Runs in the page, and writes its measurements into the page for --dump-dom to print.
PROBE = """
<script>
window.faults = [];
window.onerror = message => { window.faults.push(String(message)); };
window.onload = () => {
  const root = document.documentElement, images = [...document.images];
  const cut = [...document.querySelectorAll("h1, h2, h3, p, li, figcaption")]
    .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.textContent);
  const measured = {
    overflow: root.scrollWidth - root.clientWidth, width: innerWidth, images: images.length,
    missing: images.filter(each => !each.complete || each.naturalWidth === 0).length,
    background: getComputedStyle(document.body).backgroundColor, cut: cut, faults: window.faults,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
  };
  const output = document.createElement("pre");
  output.id = "probe";
  output.textContent = JSON.stringify(measured);
  // A narrow page is inside a frame, and only the outer page is printed.
  parent.document.body.append(output);
};
</script>
"""


def browse(*options: str) -> str:
    words = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        *options,
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def in_frame(page_path: Path, width: int, folder: Path) -> Path:
    """A page that contains another in a frame: a window is never narrower than 500 pixels."""
    path = folder / "frame.html"
    inside = html.escape(page_path.read_text())
    path.write_text(f'<body><iframe srcdoc="{inside}" width="{width}" height="900" style="border: 0"></iframe></body>')
    return path


def image() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 120, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def page_path(tmp_path_factory) -> Path:
    """A page with every kind of block, and very long names."""
    folder = tmp_path_factory.mktemp("browser")
    runs = [make_run(folder / "a run with a long name" / f"seed{seed}", seed=seed) for seed in range(2)]
    long = "a_very_long_strategy_name_that_does_not_break_" * 3
    blocks = (
        Heading(f"Report on {long}", level=1),
        Verdict(f"No difference shown between {long} and others."),
        Paragraph("Plain text. " * 40),
        Notes(("one", long)),
        Table(tuple(f"column {i}" for i in range(14)), ((long, *("1,234,567" for _ in range(13))),)),
        draw_curves(group_series(read_runs(runs))),
        ImageGrid(((image(), "✗ cat, 99 %; it is dog"),) * 5),
    )
    path = folder / "report.html"
    path.write_text(to_html(blocks).replace("<style>", f"{PROBE}<style>", 1))
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_fits_and_loads_completely(page_path, tmp_path, width, dark):
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    # Virtual time advances until everything is loaded.
    size = (f"--window-size={max(width, 500)},900", "--virtual-time-budget=5000")
    path = page_path if width >= 500 else in_frame(page_path, width, tmp_path)
    dom = browse(profile, scheme, *size, "--dump-dom", f"file://{path}")
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the page did not load"
    measured = json.loads(html.unescape(found.group(1)))
    assert (measured["dark"], measured["width"]) == (dark, width)
    assert measured["background"] == ("rgb(21, 25, 31)" if dark else "rgb(255, 255, 255)")
    assert (measured["overflow"], measured["missing"], measured["cut"], measured["faults"]) == (0, 0, [], [])
    assert measured["images"] == 2 + 5


def test_light_and_dark_look_different(page_path, tmp_path):
    pixels = []
    for scheme in (0, 1):
        shot = tmp_path / f"{scheme}.png"
        options = (f"--user-data-dir={tmp_path / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}")
        browse(*options, "--window-size=1400,1600", f"--screenshot={shot}", f"file://{page_path}")
        pixels.append(np.asarray(Image.open(shot).convert("L"), float))
    dark, light = pixels
    assert light.std() > 10
    assert dark.std() > 10
    assert light.mean() - dark.mean() > 100
