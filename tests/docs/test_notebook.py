"""The notebook of the examples: every cell in order, as a reader would run it, but with fewer epochs and seeds."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_comparison.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def shrink(source: str) -> str:
    """The same code with other values of the variables at the top."""
    for name, value in {"EPOCHS": "1", "SEEDS": "(0, 1)"}.items():
        source = re.sub(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE)
    return source


@pytest.fixture
def notebook(prepared_digits, monkeypatch):
    """The module of the cells: like a kernel's, it has no file."""
    plt.switch_backend("Agg")
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    yield module
    plt.close("all")


def test_every_cell_runs(notebook, capsys):
    for number, source in enumerate(CODE, start=1):
        exec(compile(shrink(source), f"<cell {number}>", "exec"), vars(notebook))
    assert notebook.EXAMPLES == 1437
    epochs = {name: [len(run) for run in runs] for name, runs in notebook.curves.items()}
    assert epochs == {"step-wise": [5, 5], "set O, equal samples": [3, 3]}
    ours, control = ([run[-1].top1 for run in runs] for runs in notebook.curves.values())
    mean = 100 * np.mean(np.subtract(ours, control))
    assert f"mean {mean:+.2f} points" in capsys.readouterr().out
    assert [len(figure.axes) for figure in map(plt.figure, plt.get_fignums())] == [3, 1]


def test_it_is_stored_without_outputs():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)
