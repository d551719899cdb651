import gzip
import json

import pytest

import launch
from stepwise_jax.errors import InputError
from stepwise_jax.plans.stage import Stage
from stepwise_jax.training.measurements.timing import ProfiledEpoch, parse_profiled_epoch

STAGES = (Stage("A", 0.5, 100, 10, 0.1, epochs=3), Stage("O", 1.0, 200, 10, 0.1, epochs=5))


def test_an_epoch_is_named_by_its_stage_and_number():
    assert parse_profiled_epoch("1:3", STAGES) == ProfiledEpoch(1, 3)
    assert parse_profiled_epoch("2:5", STAGES) == ProfiledEpoch(2, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "two whole numbers"),
        ("a:b", "two whole numbers"),
        ("1:-2", "two whole numbers"),
        ("0:1", "a stage from 1 to 2"),
        ("3:1", "a stage from 1 to 2"),
        ("1:4", "an epoch from 1 to 3"),
        ("2:0", "an epoch from 1 to 5"),
    ],
)
def test_an_epoch_that_the_plan_has_not_is_refused(text, message):
    with pytest.raises(InputError, match=f"--profile is '{text}'.*{message}"):
        parse_profiled_epoch(text, STAGES)


def test_the_chosen_epoch_is_traced_and_no_other(train, tmp_path):
    summary = train(tmp_path / "run", profile=ProfiledEpoch(2, 1))
    (path,) = (tmp_path / "run" / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    numbers = {int(event["args"]["step_num"]) for event in events if "step_num" in event.get("args", {})}
    # Stages of 144 and 718 examples in batches of 32 and 64: two epochs of four steps, then one of eleven.
    assert numbers == set(range(8, 19))
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert train(tmp_path / "plain")["state_sha256"] == summary["state_sha256"]
    assert not (tmp_path / "plain" / "profile").exists()


def test_a_wrong_epoch_is_refused_before_any_work(tmp_path, capsys):
    status = launch.main(["train", "configs/digits.py", "--workdir", str(tmp_path / "run"), "--profile", "9:1"])
    assert status == 2
    assert "--profile is '9:1'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
