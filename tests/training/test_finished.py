"""A finished run that is started again: nothing is opened, and what was lost of its results is written again."""

import os
import shutil

import numpy as np
import pytest

from stepwise_jax.training import loop
from stepwise_jax.workdir import record_file


def test_neither_data_nor_checkpoints_are_opened(train, tmp_path, monkeypatch):
    summary = train(tmp_path / "run")
    monkeypatch.setattr(loop, "open_session", None)
    assert train(tmp_path / "run") == summary
    assert record_file.read_records(tmp_path / "run").events[-1]["message"] == "this run is finished: nothing to do"


@pytest.mark.parametrize(("lost", "size"), [("predictions.npz", None), ("samples.npz", None), ("predictions.npz", 999)])
def test_results_that_were_lost_or_cut_short_are_written_again(train, tmp_path, lost, size):
    summary = train(tmp_path / "run")
    with np.load(tmp_path / "run" / lost) as stored:
        before = dict(stored)
    partial = tmp_path / "run" / f".{lost}.4711.140000.tmp"
    (tmp_path / "run" / lost).rename(partial)
    if size is not None:
        shutil.copy(partial, tmp_path / "run" / lost)
        os.truncate(tmp_path / "run" / lost, size)
    document = (tmp_path / "run" / "summary.json").read_bytes()
    assert train(tmp_path / "run") == summary
    assert not partial.exists()
    assert (tmp_path / "run" / "summary.json").read_bytes() == document
    with np.load(tmp_path / "run" / lost) as stored:
        assert stored.keys() == before.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(stored[name], array)
