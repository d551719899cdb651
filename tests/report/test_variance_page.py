"""The page of comparisons that vary one stream of random numbers at a time."""

import json
from pathlib import Path

import pytest
from made_runs import make_comparison

from stepwise_jax.errors import InputError
from stepwise_jax.report import report
from stepwise_jax.workdir.json_files import write_json


def varied(root: Path, vary: tuple[str, ...], spread: float) -> Path:
    """A comparison whose baseline varies by about `spread`."""
    make_comparison(root, baseline=spread)
    document = json.loads((root / "comparison.json").read_text())
    document["protocol"] = {**document.get("protocol", {}), "vary": list(vary)}
    write_json(root / "comparison.json", document)
    return root


def test_comparisons_that_vary_one_stream_at_a_time_show_its_variance(tmp_path):
    """The baseline's scores are apart by a tenth of `spread` from seed to seed, so their variance is its square."""
    roots = [varied(tmp_path / "i", ("init",), 0.01), varied(tmp_path / "o", ("order",), 0.02)]
    out = report.write_report([*roots, varied(tmp_path / "all", (), 0.03)], tmp_path / "out")
    text = (out.parent / "report.md").read_text()
    rows, names = (
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if "| baseline |" in line]
        for part in text.split("## Names in commands")
    )
    assert [row[1:4] for row in rows] == [
        ["initial weights", "3", "0.10"],
        ["order of the examples", "3", "0.20"],
        ["every stream", "3", "0.30"],
    ]
    assert [row[5] for row in rows] == ["20%", "80%", "–"]
    assert [row[2] for row in names] == ["baseline"]
    assert "| initial weights | the seed of streams.init | init |" in text
    # By hand: chi-square with 2 degrees of freedom has the quantiles 0.050636 and 7.37776.
    assert rows[0][4] == f"{0.1 * (2 / 7.37776) ** 0.5:.2f} to {0.1 * (2 / 0.050636) ** 0.5:.2f}"


def test_comparisons_that_do_not_belong_together_are_refused(tmp_path):
    roots = [varied(tmp_path / name, ("init",), 0.01) for name in "ab"]
    with pytest.raises(InputError, match="vary the same random numbers: report one of them"):
        report.write_report(roots, tmp_path / "out")
    document = json.loads((roots[1] / "comparison.json").read_text())
    document["experiment"]["model"]["name"] = "resnet50"
    write_json(roots[1] / "comparison.json", document)
    with pytest.raises(InputError, match=r"not the same comparison with other random numbers \(model\.name"):
        report.write_report(roots, tmp_path / "out")
