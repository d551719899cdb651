"""Options of `compare` that contradict each other or a design: one sentence, and nothing written."""

import pytest

import launch
from tests.cli.command_line import DIGITS, fails

DATA = ["--data.train_examples", "160", "--plan.batch_size", "8"]


@pytest.fixture(autouse=True)
def prepared_digits(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


@pytest.fixture
def design(capsys, tmp_path):
    path = tmp_path / "design.toml"
    words = ["compare", DIGITS, "--strategies", "stepwise,baseline", "--seeds", "3", "--margin", "1", *DATA]
    assert launch.main([*words, "--plan-design", str(path)]) == 0
    capsys.readouterr()
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --workdir DIR, the folder of the comparison, or --plan-design FILE"),
        (["--plan-design", "d.toml", "--workdir", "w"], "trains nothing: leave out --workdir"),
        (["--plan-design", "d.toml", "--design", "e.toml"], "trains nothing: leave out --design"),
        (["--plan-design", "d.toml", "--log", "wandb"], "trains nothing: leave out --log"),
        (["--workdir", "w", "--pilot", "p"], "--pilot says what a design can show: give it with --plan-design"),
        (["--workdir", "w", "--margin", "0"], "--margin is 0.0: it must be points of top-1, above 0"),
        (["--workdir", "w", "--margin", "nan"], "--margin is nan"),
        (
            ["--workdir", "w", "--looks", "2,4"],
            "--looks is (2, 4): it must be rising numbers of seeds that end with all 5",
        ),
        (["--workdir", "w", "--looks", "0,5"], "--looks is (0, 5)"),
        (["--workdir", "w", "--looks", "3,2,5"], "--looks is (3, 2, 5)"),
        (["--workdir", "w", "--tune-trials", "2"], "--tune-trials is 2: it must be from 3 to 99"),
        (["--workdir", "w", "--tune-trials", "3", "--data.validation_fraction", "0.1"], "leave one of them out"),
        (["--plan-design", "d.toml", "--seeds", "0"], "--seeds is 0"),
        (["--workdir", "w", "--vary", "weights"], "'weights' is no stream: they are init, order, subset, sample"),
        (["--workdir", "w", "--vary", "init", "--streams.init", "3"], "streams.init is set, and would have no effect"),
        (["--workdir", "w", "--vary", "subset"], "data.subset_draw 'tfds' draws the same for every seed"),
        (["--plan-design", "d.toml", "--pilot", "no"], "there is no folder no"),
        (["--plan-design", "no/d.toml"], "--plan-design no/d.toml cannot be written"),
    ],
)
def test_options_that_contradict_each_other(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, "compare", DIGITS, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "3"], "decides --seeds: leave it out"),
        (["--strategies", "stepwise,baseline"], "decides --strategies"),
        (["--margin", "1"], "decides --margin"),
        (["--looks", "3"], "decides --looks"),
        (["--tune-trials", "0"], "decides --tune-trials"),
        (["--vary", "init"], "decides --vary"),
        (["--pilot", "p"], "give it with --plan-design"),
        (["--plan.batch-size", "8"], "fixes every field: leave out --plan.batch-size"),
        (["--seed", "1"], "fixes every field: leave out --seed"),
    ],
)
def test_a_design_decides_everything(capsys, design, words, message):
    assert message in fails(capsys, "compare", "--design", str(design), "--workdir", str(design.parent / "w"), *words)
    assert not (design.parent / "w").exists()


def test_a_design_names_its_configuration(capsys, design):
    words = ["--design", str(design), "--workdir", str(design.parent / "w")]
    assert f"leave out CONFIG, {DIGITS}" in fails(capsys, "compare", DIGITS, *words)
    assert f"leave out CONFIG, {DIGITS}" in fails(capsys, "compare", *words, DIGITS)


def test_a_design_is_not_overwritten(capsys, design):
    assert "exists: a design is never overwritten" in fails(capsys, "compare", DIGITS, "--plan-design", str(design))


def test_a_configuration_that_was_edited_since_is_refused(capsys, tmp_path):
    mine, path = tmp_path / "mine.py", tmp_path / "d.toml"
    text = (
        "from stepwise_jax.experiment.config import DataConfig, ExperimentConfig, PlanConfig\n"
        "def get_config(): return ExperimentConfig(data=DataConfig(name='digits'), plan=PlanConfig(batch_size=8))\n"
        "def get_rows(): return {'a': get_config(), 'b': ExperimentConfig(data=DataConfig(name='digits'))}\n"
    )
    mine.write_text(text)
    words = ["compare", str(mine), "--strategies", "rows", "--data.image_size", "8", "--model.name", "resnet_small"]
    words += ["--model.small_images", "True"]
    assert launch.main([*words, "--plan-design", str(path)]) == 0
    capsys.readouterr()
    trained = ["compare", "--design", str(path), "--workdir", str(tmp_path / "w")]
    mine.write_text(text.replace("batch_size=8", "batch_size=9"))
    assert "now says something else (experiment.plan.batch_size: 9 instead of 8" in fails(capsys, *trained)
    mine.write_text(text.replace("name='digits'))}", "name='digits'), plan=PlanConfig(epochs_per_stage=30))}"))
    assert "arms.b.differs.plan.epochs_per_stage: 30 instead of nothing" in fails(capsys, *trained)
    assert not (tmp_path / "w").exists()


def test_what_cannot_be_read_is_no_design(capsys, tmp_path):
    missing = ["compare", "--design", str(tmp_path / "no.toml"), "--workdir", str(tmp_path / "w")]
    assert "no.toml cannot be read: No such file" in fails(capsys, *missing)
    (tmp_path / "bad.toml").write_text("config = 'x.py'\n")
    bad = ["compare", "--design", str(tmp_path / "bad.toml"), "--workdir", str(tmp_path / "w")]
    assert "is no design: its entry 'metric' is missing or not valid" in fails(capsys, *bad)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../evil", "it must be one that can name a folder of its own"),
        (".hidden", "it must be one that can name a folder of its own"),
        ("tuning", "it must be one that can name a folder of its own"),
        ("stepwise", "a strategy's name is 'stepwise': it must be given once"),
    ],
)
def test_a_strategy_of_a_design_has_a_name_and_a_folder_of_its_own(capsys, tmp_path, design, name, message):
    design.write_text(design.read_text().replace('name = "baseline"', f'name = "{name}"'))
    assert message in fails(capsys, "compare", "--design", str(design), "--workdir", str(tmp_path / "w"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["design.toml"]


def test_more_seeds_than_anybody_trains_are_refused(capsys):
    sentence = "--seeds is 99999999999: it must be from 1 to 10000"
    assert sentence in fails(capsys, "compare", DIGITS, "--plan-design", "d.toml", "--seeds", "99999999999")
