"""What a run shows without being asked, and what with --verbose."""

import io

import pytest

from stepwise_jax.cli.display import make_display
from stepwise_jax.workdir.records import EventRecord


@pytest.mark.parametrize(
    ("verbose", "shown"), [(False, ["resuming"]), (True, ["compiled", "resuming", "on the device"])]
)
def test_what_the_compiler_did_is_shown_on_request(verbose, shown):
    stream = io.StringIO()
    display = make_display(stream, verbose)
    for name, message in (("compile", "compiled"), ("resume", "resuming"), ("delivery", "on the device")):
        display(EventRecord(name, message))
    assert stream.getvalue().splitlines() == shown
