"""Lines that say how far preparing and scanning have come."""

import io

from rich.console import Console

from stepwise_jax.cli.display import LineDisplay, LiveDisplay, make_display


def test_progress_has_at_most_eleven_lines_for_each_thing():
    stream = io.StringIO()
    shown = make_display(stream)
    assert isinstance(shown, LineDisplay)
    for what in ("train", "test"):
        for done in range(0, 1001):
            shown.show_progress(done, 1000, what)
    assert len(stream.getvalue().splitlines()) == 22


def test_progress_towards_an_unknown_number_says_how_many_so_far(monkeypatch):
    stream = io.StringIO()
    shown = LineDisplay(stream)
    for done in (0, 3, 12_345, 12_346, 99_999, 100_000):
        shown.show_progress(done, 0, "scanning the files")
    assert stream.getvalue().splitlines() == [
        "scanning the files",
        "scanning the files: 12,345 so far",
        "scanning the files: 100,000 so far",
    ]
    monkeypatch.setenv("TERM", "xterm")
    live = LiveDisplay(io.StringIO())
    live.show_progress(12_345, 0, "scanning the files")
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(live._render())
    live.finish()
    assert console.export_text() == "scanning the files: 12,345 so far\n"
