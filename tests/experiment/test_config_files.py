"""Several experiments in one configuration file, controls of a user-defined strategy, and the paper's rows by name."""

import pytest

from stepwise_jax.cli.parsing.overrides import parse_fields
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.config_files import load_config, load_rows
from stepwise_jax.experiment.serialization import experiment_from_dict, experiment_to_dict
from stepwise_jax.plans import planning, stage
from stepwise_jax.studies import comparison

OWN = """
from stepwise_jax.experiment.config import *
from stepwise_jax.plans.stage import Stage

def halves(plan, examples):
    return (Stage("half", 0.5, examples // 2, 10, 0.2, epochs=4), Stage("all", 1.0, examples, 20, 0.1, epochs=1))

def get_config():
    return ExperimentConfig(plan=PlanConfig(strategy=halves, batch_size=10))

def get_rows():
    return {"one": get_config(), "two": ExperimentConfig(seed=2)}
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return str(path)


def test_a_row_is_named_after_the_file(own):
    assert load_config(f"{own}:two").seed == 2
    assert list(load_rows(own)) == list(load_rows(f"{own}:one")) == ["one", "two"]
    assert load_rows("configs/digits.py") == {}


@pytest.mark.parametrize(
    ("row", "body", "message"),
    [
        ("three", OWN, "has no row 'three': its rows are one, two"),
        ("one", OWN.split("def get_rows")[0], "has no row 'one': it has no get_rows()"),
        ("one", "def get_rows():\n    return [1]\n", "returned no dictionary of ExperimentConfigs"),
        ("one", "def get_rows():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
    ],
)
def test_a_row_that_is_not_there_is_bad_input(tmp_path, row, body, message):
    (tmp_path / "c.py").write_text(body)
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(")", r"\)")):
        load_config(f"{tmp_path / 'c.py'}:{row}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys\n\nsys.exit('enough')\n", "line 3: SystemExit: enough"),
        ("def get_config():\n    raise GeneratorExit\n", "line 2: GeneratorExit"),
        ("class Odd(BaseException): pass\n\ndef get_config():\n    raise Odd('word')\n", "line 4: Odd: word"),
    ],
)
def test_whatever_a_configuration_raises_is_one_sentence_with_its_line(tmp_path, body, message):
    (tmp_path / "mine.py").write_text(body)
    with pytest.raises(InputError) as caught:
        load_config(str(tmp_path / "mine.py"))
    assert str(caught.value) == f"CONFIG {str(tmp_path / 'mine.py')!r} does not run: {message}"


def test_a_file_beside_a_configuration_is_imported_relatively_and_that_is_said(tmp_path):
    (tmp_path / "shared.py").write_text("SEED = 7\n")
    (tmp_path / "mine.py").write_text("import shared\n")
    with pytest.raises(InputError, match=r"No module named 'shared'; import the file beside it by `from \. import sha"):
        load_config(str(tmp_path / "mine.py"))
    (tmp_path / "mine.py").write_text("import absent_from_everywhere\n")
    with pytest.raises(InputError, match=r"No module named 'absent_from_everywhere'$"):
        load_config(str(tmp_path / "mine.py"))


def test_an_interruption_of_a_configuration_is_not_its_error(tmp_path):
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_config(str(tmp_path / "mine.py"))


def test_a_folder_in_place_of_a_configuration_names_a_file_in_it(tmp_path):
    with pytest.raises(InputError, match=r"' is a folder: name a file in it that ends with \.py$"):
        load_config(str(tmp_path))
    for name in ("second.py", "first.py", "_helper.py", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "another.py").mkdir()
    with pytest.raises(InputError, match=rf"' is a folder: name a file in it, such as {tmp_path / 'first.py'}$"):
        load_config(str(tmp_path))


def test_a_control_is_matched_to_a_user_defined_strategy(own):
    parsed = parse_fields(load_config(own), ["--plan.strategy", "equal_samples"], "test")
    (only,) = planning.make_plan(parsed.plan, 1000, parsed.optimizer)
    assert only.samples == 3000
    # The run records its stages; the experiment is read back without the function.
    assert experiment_from_dict(experiment_to_dict(parsed)).plan.staged == "stepwise"


def test_another_plan_no_longer_reproduces_the_papers_row():
    config = load_config("configs/cifar100_resnet50.py")
    assert config.reproduces == "I/stepwise"

    def label(*words: str) -> str:
        return parse_fields(config, words, "test").reproduces

    assert label() == label("--seed", "3", "--dtype", "bfloat16", "--evaluation.every_epochs", "5") == "I/stepwise"
    assert label("--plan.strategy", "baseline") == label("--data.image_size", "32") == label("--model.width", "8") == ""
    assert label("--plan.strategy", "baseline", "--reproduces", "I/baseline") == "I/baseline"


def test_recorded_stages_keep_their_epoch_rates():
    config = parse_fields(ExperimentConfig(), ["--plan.strategy", "cosine", "--data.name", "digits"], "test")
    planned = planning.make_plan(config.plan, 1437, config.optimizer)
    assert stage.stage_from_dict(stage.stage_to_dict(planned[0])) == planned[0]
    older = {name: value for name, value in stage.stage_to_dict(planned[0]).items() if name != "epoch_rates"}
    assert stage.stage_from_dict(older).epoch_rates is None


def test_default_arms_of_a_user_defined_strategy(own):
    chosen = comparison.choose_arms([], own, load_config(own), {})
    assert [each.name for each in chosen][:2] == ["own", "constant_rate"]
    assert chosen[0].arguments() == ()
