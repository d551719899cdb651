"""A study's mirror: a machine that is lost with its disk costs a comparison neither its runs nor its result."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import launch
from stepwise_jax.errors import InputError
from stepwise_jax.studies.comparison_folder import open_comparison_folder
from stepwise_jax.studies.executors.mirror import StudyMirror, recorded_study
from stepwise_jax.studies.jobs import Job
from stepwise_jax.workdir.lock import is_locked
from stepwise_jax.workdir.mirror import open_store
from tests.cli.command_line import DIGITS, fails
from tests.studies.example_comparison import compared
from tests.studies.executors.small_comparison import ROOT, RUN_WORDS
from tests.studies.test_end_to_end import TINY, wait_until
from tests.workdir.mirror.s3_server import s3 as s3

WORDS = ["compare", DIGITS, "--seeds", "1", "--strategies", "stepwise,baseline", "--processes", "1", *RUN_WORDS]
# The second run is so long that its first copy is there before it ends.
WORDS += ["--plan.epochs_per_stage", "10", "--plan.decay_every", "10", "--plan.baseline_epochs", "240"]
WORDS += ["--plan.baseline_decay_every", "240", "--evaluation.every_epochs", "20"]
# So many are kept that a slow copy does not lose the checkpoint that it is at.
WORDS += ["--checkpoint.every_seconds", "0.5", "--checkpoint.keep", "100"]
RUNS = ("stepwise/seed0", "baseline/seed0")


def outcome(root: Path, output: str) -> dict[str, Any]:
    """The final states, and the table without its last column, the time."""
    rows = [line.split()[:-1] for line in output.splitlines() if line.startswith(("stepwise", "baseline"))]
    states = [json.loads((root / run / "summary.json").read_text())["state_sha256"] for run in RUNS]
    return {"rows": rows, "states": states}


@pytest.fixture
def undisturbed(once, prepared_digits) -> dict[str, Any]:
    def train(folder: Path) -> dict[str, Any]:
        words = [sys.executable, "launch.py", *WORDS, "--workdir", str(folder / "compared")]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        return outcome(folder / "compared", done.stdout)

    return once("undisturbed-mirrored", train)


def files_of(url: str) -> dict[str, int]:
    """What the mirror at this place lists."""
    manifest = open_store(url).read_manifest()
    return manifest["files"] if manifest else {}


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_comparison_whose_machine_is_lost_ends_as_the_undisturbed(tmp_path, kind, request, undisturbed, capsys):
    """kill -9 in its second run, the local folder deleted, the same command on another machine."""
    url = request.getfixturevalue("s3") if kind == "s3" else f"file://{tmp_path}/mirror"
    root = tmp_path / "compared"
    words = [*WORDS, "--workdir", str(root), "--mirror", url]
    with subprocess.Popen([sys.executable, "launch.py", *words], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: any(name.startswith("checkpoints/") for name in files_of(f"{url}/{RUNS[1]}")))
        process.send_signal(signal.SIGKILL)
    # Without their parent, runs save and stop.
    wait_until(lambda: not is_locked(root / RUNS[1]))
    first = (root / RUNS[0] / "summary.json").read_bytes()
    assert not (root / RUNS[1] / "summary.json").exists(), "the second run ended before the blow"
    shutil.rmtree(root)
    capsys.readouterr()
    assert launch.main(words) == 0
    assert outcome(root, capsys.readouterr().out) == undisturbed
    assert (root / RUNS[0] / "summary.json").read_bytes() == first, "a finished run was trained again"
    assert "resuming after " in (root / "baseline" / "seed0.log").read_text()
    looks = json.loads((root / "comparison.json").read_text())["history"]["looks"]
    assert len(looks) == 1
    assert files_of(url).keys() >= {"comparison.json", "failures.json", "report/report.md"}
    # All of it again, on a machine where nothing is left to train.
    shutil.rmtree(root)
    assert launch.main(words) == 0
    assert outcome(root, capsys.readouterr().out) == undisturbed
    assert not list(root.rglob("*.log"))


@pytest.mark.parametrize("grid", [["--grid", "plan.learning_rate=0.02,0.0001"], ["--trials", "2"]])
def test_a_sweep_comes_back_without_training(tmp_path, grid, prepared_digits, capsys):
    root, url = tmp_path / "swept", f"file://{tmp_path}/mirror/"
    words = ["sweep", DIGITS, "--workdir", str(root), "--processes", "1", *grid, *TINY, "--mirror", url]
    words += ["--plan.strategy", "baseline"] if "--grid" in grid else []
    assert launch.main(words) == 0
    results = (root / "results.json").read_bytes()
    shutil.rmtree(root)
    assert launch.main(words) == 0
    assert (root / "results.json").read_bytes() == results
    assert not list(root.rglob("*.log"))
    assert "holds another sweep (other seeds)" in fails_at(capsys, *words, "--seeds", "2")


def fails_at(capsys, *words: str) -> str:
    capsys.readouterr()
    return fails(capsys, *words)


def made_run(folder: Path) -> Job:
    """A finished run that was trained without a mirror."""
    folder.mkdir(parents=True)
    for name in ("config.json", "summary.json"):
        (folder / name).write_text("{}")
    return Job(folder.parent.name, folder, ("train",), 1)


def test_runs_that_finished_without_a_mirror_are_copied(tmp_path):
    root, url = tmp_path / "compared", f"file://{tmp_path}/mirror"
    finished, due = made_run(root / "seesaw:cosine" / "seed0"), Job("due", root / "b" / "seed0", ("train", "x"), 1)
    (root / "comparison.json").write_text("{}")
    (root / ".slurm").mkdir()
    (root / ".slurm" / "1.sh").touch()
    executed: list[Job] = []

    def execute(jobs):
        assert files_of(url).keys() == {"comparison.json"}, "what was decided is not there before the runs"
        executed.extend(jobs)
        return []

    assert StudyMirror(root, url).mirrored(execute)([finished, due]) == []
    assert [each.command for each in executed] == [
        ("train", "--mirror", f"{url}/seesaw:cosine/seed0"),
        ("train", "x", "--mirror", f"{url}/b/seed0"),
    ]
    assert files_of(f"{url}/seesaw:cosine/seed0").keys() == {"config.json", "summary.json"}
    assert not files_of(f"{url}/b/seed0")
    shutil.rmtree(root)
    StudyMirror(root, url).restore(lambda *_: None)
    assert {path.relative_to(root).as_posix() for path in root.rglob("*.json")} == {
        "comparison.json",
        "seesaw:cosine/seed0/config.json",
        "seesaw:cosine/seed0/summary.json",
    }


def test_a_run_that_the_folder_lacks_comes_back_and_one_that_it_has_stays(tmp_path):
    root, url = tmp_path / "compared", f"file://{tmp_path}/mirror"
    jobs = [made_run(root / name / "seed0") for name in "ab"]
    StudyMirror(root, url).mirrored(lambda _: [])(jobs)
    shutil.rmtree(root / "a")
    (root / "b" / "seed0" / "config.json").write_text("newer")
    StudyMirror(root, url).restore(lambda *_: None)
    assert (root / "a" / "seed0" / "summary.json").exists()
    assert (root / "b" / "seed0" / "config.json").read_text() == "newer"


def test_what_a_mirror_does_not_hold_is_no_study_and_errors_name_the_mirror(tmp_path):
    url = f"file://{tmp_path}/mirror"
    with recorded_study(url, "comparison.json") as recorded:
        assert recorded is None
    open_store(url).write_manifest({"owner": "", "files": {"config.json": 2}})
    message = "holds something else, without comparison.json: name a new place"
    with pytest.raises(InputError, match=message), recorded_study(url, "comparison.json"):
        pass
    (tmp_path / "comparison.json").write_text("{}")
    open_store(url).upload(tmp_path, "comparison.json")
    open_store(url).write_manifest({"owner": "", "files": {"comparison.json": 2}})
    with pytest.raises(InputError) as caught, recorded_study(url, "comparison.json") as recorded:
        raise InputError(f"{recorded} holds another comparison")
    assert str(caught.value) == f"--mirror {url} holds another comparison"


def other_comparison(tmp_path: Path) -> str:
    """The mirror of a comparison of other seeds and fields, which is read and not trained."""

    open_comparison_folder(tmp_path / "other", compared("stepwise", "baseline"))
    StudyMirror(tmp_path / "other", f"file://{tmp_path}/mirror").copy()
    return f"file://{tmp_path}/mirror"


def test_the_mirror_of_another_comparison_is_refused_and_left_as_it_is(tmp_path, prepared_digits, capsys):
    url = other_comparison(tmp_path)
    before = open_store(url).read_manifest()
    message = fails(capsys, *WORDS, "--workdir", str(tmp_path / "new"), "--mirror", url)
    assert message.startswith(f"error: --mirror {url} holds another comparison (")
    assert not (tmp_path / "new").exists()
    assert open_store(url).read_manifest() == before


@pytest.mark.parametrize("command", [WORDS, ["sweep", DIGITS, "--grid", "plan.learning_rate=0.02,0.0001"]])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mirror", "--mirror is 'mirror': it must be a URL, such as s3://bucket/run"),
        ("nothing://x", "--mirror is 'nothing://x': "),
        ("file:///proc/none/study", "--mirror file:///proc/none/study cannot be "),
    ],
)
def test_a_place_that_cannot_be_used_gets_one_sentence_before_anything_starts(
    command, url, message, tmp_path, prepared_digits, capsys
):
    assert message in fails(capsys, *command, "--workdir", str(tmp_path / "new"), "--mirror", url)
    assert not (tmp_path / "new").exists()


def test_a_design_is_planned_without_a_mirror(tmp_path, capsys):
    words = ["--plan-design", str(tmp_path / "d.toml"), "--mirror", "file:///x"]
    assert "trains nothing: leave out --mirror" in fails(capsys, "compare", DIGITS, *words)
