"""`bench --data` measures every loader, prints a table, and rejects invalid options."""

import json

import pytest

import launch
from stepwise_jax.cli.bench import input

WORDS = [
    "bench",
    "--data",
    "--images",
    "10",
    "--side",
    "64",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--epochs",
    "2",
]


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch):
    monkeypatch.setattr(input, "_DECODE_SECONDS", 0.05)


def test_every_loader_is_compared_with_opencv_alone(capsys):
    assert launch.main([*WORDS, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    ways = {row["way"]: row for row in document["rows"]}
    assert set(ways) == {"OpenCV alone, whole", "OpenCV alone, reduced", "streamed", "resident, decoded once"}
    assert ways["OpenCV alone, reduced"]["of_bare_reduced"] == ways["OpenCV alone, whole"]["of_bare"] == 1.0
    for row in ways.values():
        assert row["images_per_second"] == pytest.approx(row["per_core"] * document["cores"])
        assert row["images_per_second"] > 0
    assert len(document["peak_bytes"]) == 2
    assert 2**20 < document["peak_bytes"][0] <= document["peak_bytes"][1]


def test_the_table_names_sizes_and_ways(capsys):
    assert launch.main(WORDS) == 0
    out = capsys.readouterr().out
    for text in ("JPEG 64 x 64", "32 x 32", "streamed", "images/s", "peak memory"):
        assert text in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench"], "--data"),
        (["bench", "--data", "--epochs", "0"], "at least 1"),
        (["bench", "--data", "--images", "10"], "--images 10"),
    ],
)
def test_invalid_options_are_errors(capsys, words, message):
    assert launch.main(words) == 2
    assert message in capsys.readouterr().err
