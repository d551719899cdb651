"""Slips on the command line: one sentence each, with what would be right."""

import pytest

from stepwise_jax.cli.parsing import overrides
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import flatten_fields
from tests.cli.command_line import DIGITS, fails


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "launch.py needs COMMAND"),
        (("compair", DIGITS), "'compair' is no command: "),
        (("compair", DIGITS), "; did you mean compare?"),
        (("train", DIGITS), "train needs --workdir: "),
        (("train", "--workdir", "run"), "train needs CONFIG: "),
        (("compare", DIGITS, "--workdir", "new", "--seeds", "1,2,3"), "--seeds is '1,2,3': it must be a whole number"),
        (("predict", "run", "x.png", "--weights", "emma"), "--weights is 'emma': it must be one of raw, ema; "),
        (("predict", "run", "x.png", "--top"), "--top: expected one argument"),
        (
            ("compare", DIGITS, "--workdir", "new", "--strategies", "a,", "b"),
            "--strategies a, b: a list has no spaces: write --strategies a,b",
        ),
        (
            ("compare", DIGITS, "--workdir", "new", "--strategies", "all,stepwise"),
            "'all' cannot stand beside other",
        ),
        (("plan", DIGITS, "plan.batch_size=8"), "'plan.batch_size=8' is no option: write --plan.batch_size 8"),
        (("plan", DIGITS, "plan.batch_size"), "'plan.batch_size' is no option: write --plan.batch_size"),
        (("plan", DIGITS, "digits"), "'digits' belongs to no option"),
        (("plan", DIGITS, "--plan.batch_size", "8", "9"), "'9' belongs to no option"),
        (
            ("plan", DIGITS, "--plan.lr", "0.1"),
            "--plan.lr is no field of the experiment: did you mean --plan.learning_rate?",
        ),
        (("plan", DIGITS, "--lr", "0.1"), "--lr is no field of the experiment: did you mean --plan.learning_rate?"),
        (
            ("plan", DIGITS, "--plan.fractions", "0.2,0.4"),
            "--plan.fractions is '0.2,0.4': it must be numbers with spaces between them: 0.2 0.4",
        ),
        (
            ("plan", DIGITS, "--plan.fractions", "half"),
            "is 'half': it must be numbers with spaces between",
        ),
        (("plan", DIGITS, "--plan.fractions", "20", "40", "60"), "shares of the training set that end with 1"),
        (("plan", DIGITS, "--plan.strategy", "stepwize"), "; did you mean stepwise?"),
        (("plan", DIGITS, "--plan.strategy", "xyzzy"), "; the strategies are stepwise, baseline, "),
        (("sweep", DIGITS, "--workdir", "new", "--grid", "plan.batchsize=8"), "; did you mean plan.batch_size?"),
        (("evaluate", "missing"), "there is no folder missing"),
    ],
)
def test_a_slip_gets_one_sentence(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_fields_as_records_do(capsys):
    overrides.print_fields(ExperimentConfig(), "python launch.py train CONFIG")
    shown = capsys.readouterr().out
    assert [name for name in flatten_fields(ExperimentConfig()) if f"--{name}" not in shown] == []


def test_usual_names_lead_to_fields():
    assert set(overrides._USUAL_NAMES.values()) <= set(flatten_fields(ExperimentConfig()))
