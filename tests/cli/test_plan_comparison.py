"""`plan --compare`: several plans in one table, one document and one picture."""

import io
import json

import pytest
from PIL import Image

import launch
from stepwise_jax.cli.tables import print_plans
from stepwise_jax.plans.registry import STRATEGIES, shown_strategies
from tests.cli.command_line import CIFAR100, DIGITS, fails

SOME = "stepwise,seesaw,pacing:linear"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_80_columns(found: dict, monkeypatch) -> list[str]:
    """The lines of the table on a terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    print_plans(found, terminal)
    return terminal.getvalue().splitlines()


@pytest.fixture(autouse=True)
def no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing here"))


def compare(capsys, *words: str) -> str:
    assert launch.main(["plan", CIFAR100, "--compare", *words]) == 0
    return capsys.readouterr().out


def document(capsys, *words: str) -> dict:
    return json.loads(compare(capsys, *words, "--json"))


def test_a_row_for_each_plan_has_its_cost_beside_the_baselines(capsys):
    rows = [line.split() for line in compare(capsys, SOME).splitlines()]
    assert ["stepwise", "5", "24–96", "3,000,000", "74,940", "60.0", "36.0"] in rows
    assert ["seesaw", "4", "24–5000", "3,000,000", "41,658", "60.0", "20.0"] in rows
    assert ["pacing:linear", "9", "24", "3,010,000", "125,372", "60.2", "60.2"] in rows
    assert ["baseline:", "5,000,000", "samples", "planned", "(100", "M)", "in", "208,300", "updates"] in rows


def test_the_document_has_the_plans_of_single_calls(capsys):
    found = document(capsys, "own,seesaw,redrawn")
    assert [plan["name"] for plan in found["plans"]] == ["own", "seesaw", "redrawn"]
    assert launch.main(["plan", CIFAR100, "--plan.strategy", "seesaw", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert found["baseline"] == alone.pop("baseline")
    assert found["plans"][1] == {"name": "seesaw", "title": STRATEGIES["seesaw"].title, **alone}


def test_all_strategies_fit_on_80_columns_with_their_names_whole(capsys, monkeypatch):
    found = document(capsys, "all")
    assert tuple(plan["name"] for plan in found["plans"]) == shown_strategies()
    lines = on_80_columns(found, monkeypatch)
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line.strip()} >= set(shown_strategies())


def test_a_long_name_goes_on_in_the_next_line(capsys, monkeypatch):
    name = "pacing:linear:start=0.123:full_after=0.456:levels=7"
    lines = on_80_columns(document(capsys, name), monkeypatch)
    first = next(index for index, line in enumerate(lines) if line.startswith("pacing"))
    assert "".join(line[:40].split()[0] for line in lines[first : first + 2]) == name
    assert max(map(len, lines)) <= 80


def test_fields_change_every_plan(capsys):
    found = document(capsys, "shrink_perturb,baseline", "--plan.batch_size", "10")
    assert [plan["stages"][0]["batch_size"] for plan in found["plans"]] == [10, 10]
    assert found["baseline"]["stages"][0]["batch_size"] == 10


def test_rows_of_the_configuration_are_compared(capsys):
    samples = {plan["name"]: plan["samples"] for plan in document(capsys, "rows")["plans"]}
    alone = {"A": 200_000, "B": 400_000, "C": 600_000, "D": 800_000, "O": 1_000_000}
    assert samples == {"baseline": 5_000_000, "stepwise": 3_000_000, **alone}


@pytest.mark.parametrize("names", [SOME, "progressive_size:64:128,critical_batch_warmup"])
def test_a_picture_is_drawn(capsys, tmp_path, names):
    for suffix in ("png", "svg"):
        compare(capsys, names, "--out", str(tmp_path / f"plans.{suffix}"))
    with Image.open(tmp_path / "plans.png") as image:
        assert min(image.size) > 500
    drawn = (tmp_path / "plans.svg").read_text()
    assert drawn.lstrip().startswith("<?xml")
    before = (tmp_path / "plans.svg").read_bytes()
    compare(capsys, names, "--out", str(tmp_path / "plans.svg"))
    assert (tmp_path / "plans.svg").read_bytes() == before


def test_one_plan_is_drawn_too(capsys, tmp_path):
    assert launch.main(["plan", CIFAR100, "--out", str(tmp_path / "plan.svg"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 3_000_000
    assert (tmp_path / "plan.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", ""], "--compare is '': it must be the names of strategies or rows"),
        (
            ["--compare", "seesw"],
            "digits.py nor a known strategy: try seesaw",
        ),
        (["--compare", "cosine,cosine"], "--compare is 'cosine,cosine': it must be different names"),
        (["--compare", "pacing:linaer"], "did you mean linear?"),
        (["--compare", "rows"], "has no get_rows()"),
        (["--compare", "cosine", "--memory"], "--memory: it measures one plan: leave out --compare"),
        (["--out", "plan.pdf"], "--out is 'plan.pdf': it must be a file that ends with .png or .svg"),
        (["--out", "no/such/plan.svg"], "--out is 'no/such/plan.svg': it must be in a folder that exists"),
        (["--out", "/proc/plan.svg"], "--out /proc/plan.svg cannot be written: No such file or directory"),
        (["--compare", "own,cosine", "--plan.batch_size", "500"], "strategy own: batch_size of stage 1 (A) is 500"),
    ],
)
def test_what_cannot_be_compared_gets_one_sentence(capsys, words, message):
    assert message in fails(capsys, "plan", DIGITS, *words)


def test_a_picture_is_checked_before_the_plan_is_made_and_leaves_nothing_if_that_fails(capsys, tmp_path):
    words = ["--out", str(tmp_path / "plan.svg"), "--compare", "seesw"]
    assert "cannot be written" in fails(capsys, "plan", DIGITS, "--compare", "seesw", "--out", "/proc/plan.svg")
    assert "known strategy" in fails(capsys, "plan", DIGITS, *words)
    assert list(tmp_path.iterdir()) == []
