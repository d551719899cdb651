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
from made_runs import BASELINE, make_run
from PIL import Image

from stepwise_jax.report.blocks import Heading, ImageGrid, Notes, Paragraph, Table, Verdict
from stepwise_jax.report.curves import draw_curves
from stepwise_jax.report.page.rendering import to_html
from stepwise_jax.report.series import run_series
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


def browse(*options: str, refuses: str = "CONSOLE") -> str:
    """The output of the browser; nothing is written to its console, unless it is to refuse something."""
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
    assert (refuses in done.stderr) == (refuses != "CONSOLE"), done.stderr
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
        draw_curves(run_series(read_runs(runs))),
        ImageGrid(((image(), "✗ cat, 99 %; it is dog"),) * 5),
    )
    path = folder / "report.html"
    path.write_text(with_script(to_html(blocks), PROBE))
    return path


def with_script(page: str, script: str) -> str:
    """The page with another script, ahead of the policy that would forbid it."""
    return page.replace("<meta http-equiv", f"{script}<meta http-equiv", 1)


def probe(path: Path, folder: Path, *options: str) -> dict:
    """What the script of a page measured; virtual time advances until everything is loaded."""
    dom = browse(
        f"--user-data-dir={folder / 'profile'}", *options, "--virtual-time-budget=5000", "--dump-dom", f"file://{path}"
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the page did not load"
    return json.loads(html.unescape(found.group(1)))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_fits_and_loads_completely(page_path, tmp_path, width, dark):
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    path = page_path if width >= 500 else in_frame(page_path, width, tmp_path)
    measured = probe(path, tmp_path, scheme, f"--window-size={max(width, 500)},900")
    assert (measured["dark"], measured["width"]) == (dark, width)
    assert measured["background"] == ("rgb(21, 25, 31)" if dark else "rgb(255, 255, 255)")
    assert (measured["overflow"], measured["missing"], measured["cut"], measured["faults"]) == (0, 0, [], [])
    assert measured["images"] == 1 + 5


# Uses the curves as a reader would: a look at values, a curve hidden, samples for epochs, and a closer look.
USE = """
<script>
window.onload = () => {
  const plots = document.querySelectorAll(".plot"), over = plots[0].querySelector(".u-over");
  const picture = document.querySelector(".curves > figure");
  const all = [...document.querySelectorAll(".controls button")];
  const buttons = name => all.find(each => each.textContent.startsWith(name));
  const move = (type, share) => over.dispatchEvent(new MouseEvent(type, {
    bubbles: true, clientX: over.getBoundingClientRect().left + share * over.clientWidth,
    clientY: over.getBoundingClientRect().top + 50,
  }));
  const tip = () => plots[0].querySelector(".tip"), axis = () => plots[0].querySelector(".uplot");
  const seen = { plots: plots.length, hidden: picture.hidden };
  over.dispatchEvent(new MouseEvent("mouseenter"));
  move("mousemove", 0.5);
  setTimeout(() => {
    seen.tip = tip().textContent;
    buttons("second").click();
    move("mousemove", 0.501);
    setTimeout(() => {
      seen.fewer = tip().textContent;
      buttons("by samples").click();
      setTimeout(() => {
        seen.samples = buttons("by samples").getAttribute("aria-pressed");
        const output = document.createElement("pre");
        output.id = "probe";
        output.textContent = JSON.stringify(seen);
        document.body.append(output);
      }, 100);
    }, 100);
  }, 100);
};
</script>
"""


def test_curves_show_values_and_can_be_hidden(tmp_path):
    runs = [make_run(tmp_path / name, seed=seed) for seed, name in enumerate(("first", "second"))]
    # It ends after 6 epochs, before those that are looked at.
    runs.append(make_run(tmp_path / "third", BASELINE))
    page = to_html((Heading("Two runs", level=1), draw_curves(run_series(read_runs(runs)))))
    (tmp_path / "used.html").write_text(with_script(page, USE))
    seen = probe(tmp_path / "used.html", tmp_path, "--window-size=1400,900")
    assert (seen["plots"], seen["hidden"], seen["samples"]) == (6, True, "true")
    # By hand: after the tenth of 20 epochs, top-1 is 0.9 - 0.8 / 10.
    assert seen["tip"] == "epoch 10first82.00 %second82.00 %"
    assert seen["fewer"] == "epoch 10first82.00 %"


def test_without_its_script_the_page_shows_the_picture(tmp_path):
    page = to_html((Heading("A run", level=1), draw_curves(run_series(read_runs([make_run(tmp_path / "run")])))))
    # Another script than the one of the policy: the browser refuses it.
    scriptless = page.replace('"use strict";\n', '"use strict"; //\n', 1)
    assert scriptless != page
    path = tmp_path / "scriptless.html"
    path.write_text(with_script(scriptless, PROBE))
    words = (f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom")
    dom = browse(*words, f"file://{path}", refuses="Content Security Policy")
    assert '<div class="curves"><figure tabindex="0">' in dom
    assert "uplot" not in dom.split("</style>")[1].split("<script>")[0]


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
