"""The page of a sweep, from results that the tests write."""

from typing import Any

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.report.blocks import Table, Verdict
from stepwise_jax.report.sweep_page import sweep_page
from stepwise_jax.workdir.json_files import write_json


def point(batch_size: str, by_seed: list[float], updates: int) -> dict[str, Any]:
    fields = {"plan.batch_size": batch_size, "plan.strategy": "baseline"}
    return {"point": fields, "top1": sum(by_seed) / 2, "by_seed": by_seed, "samples": 100, "updates": updates}


RESULTS = {
    "points": [point("16", [0.5, 0.7], 10), point("32", [0.4, 0.4], 5)],
    "best": {"plan.batch_size": "16", "plan.strategy": "baseline"},
    "test": {"top1": 0.625, "top5": 0.9},
    "failures": [],
}


def test_a_sweep_names_its_best_point(tmp_path):
    write_json(tmp_path / "sweep.json", {})
    write_json(tmp_path / "results.json", RESULTS)
    blocks = sweep_page(tmp_path)
    (verdict,) = (block for block in blocks if isinstance(block, Verdict))
    assert verdict.text == (
        "Of 2 points, batch size 16 scored best on held-out images, 60.00 %; on the test set it reached 62.50 % top-1."
    )
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert table.rows[0] == ("16", "60.00 %", "2", "100", "10")


@pytest.mark.parametrize("document", [[], {}, {**RESULTS, "points": []}, {**RESULTS, "test": 3}])
def test_a_damaged_sweep_is_reported(tmp_path, document):
    write_json(tmp_path / "results.json", document)
    with pytest.raises(InputError, match="is damaged"):
        sweep_page(tmp_path)
    with pytest.raises(InputError, match="has no results yet"):
        sweep_page(tmp_path / "none")
