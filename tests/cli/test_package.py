"""The package as users install it: a wheel in an environment of its own, used from a folder that is no clone."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_images

import stepwise_jax

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SMALL = (
    *("--model.width", "4", "--model.blocks", "1", "--data.image_size", "8"),
    *("--plan.fractions", "0.5", "1.0", "--plan.batch_multipliers", "1", "1", "--plan.batch_size", "96"),
    *("--plan.epochs_per_stage", "1", "--plan.decay_every", "1"),
)


def without_python_path() -> dict[str, str]:
    """The environment variables without the one that would put a clone before the installed package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which sees this one's libraries but not its editable package."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("stepwise_jax-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-index", "--no-deps", str(wheel)], check=True)
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv"


@pytest.fixture
def run(environment: Path, tmp_path: Path, data_dir: Path) -> Run:
    """Runs the command `stepwise` in an empty folder."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        variables = {**without_python_path(), "TFDS_DATA_DIR": str(data_dir)}
        command = [str(environment / "bin" / "stepwise"), *words]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return run


def test_the_installed_package_is_not_the_clone(environment: Path, tmp_path: Path):
    script = "import stepwise_jax, stepwise_jax.models, stepwise_jax.configs; print(stepwise_jax.models.__file__)"
    words = [environment / "bin" / "python", "-c", script]
    variables = without_python_path()
    found = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(environment)


def test_the_installed_command_plans_trains_predicts_and_reports(run: Run, tmp_path: Path):
    plan = run("plan", "cifar100_resnet50:baseline", "--json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["samples"] == 5_000_000

    trained = run("train", "digits", "--workdir", "run", *SMALL)
    assert trained.returncode == 0, trained.stderr
    versions = json.loads((tmp_path / "run" / "config.json").read_text())["versions"]
    assert versions["stepwise-jax"] == stepwise_jax.__version__

    write_images(tmp_path / "images", 1, seed=0)
    predicted = run("predict", "run", "images", "--json")
    assert predicted.returncode == 0, predicted.stderr
    assert [len(each["classes"]) for each in json.loads(predicted.stdout)] == [5, 5, 5]

    exported = run("export", "run", "--out", "network.safetensors")
    assert exported.returncode == 0, exported.stderr
    reported = run("report", "run", "--out", "report")
    assert reported.returncode == 0, reported.stderr
    assert "stepwise_jax" not in (tmp_path / "report" / "report.html").read_text()


def test_the_installed_command_names_itself(run: Run):
    assert run("--version").stdout == f"stepwise-jax {stepwise_jax.__version__}\n"
    assert run("--help").stdout.startswith("usage: stepwise ")
    unknown = run("plan", "cifar100_resnet5")
    assert unknown.returncode == 2
    assert unknown.stderr.count("\n") == 1
    assert "did you mean cifar100_resnet50?" in unknown.stderr


def test_importing_the_package_loads_no_library(tmp_path: Path):
    script = "import sys, stepwise_jax; sys.exit(bool({'jax', 'numpy', 'flax', 'optax'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_every_public_name_is_found():
    assert set(stepwise_jax.__all__) <= set(dir(stepwise_jax))
    assert all(getattr(stepwise_jax, name) is not None for name in stepwise_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        stepwise_jax.trian  # noqa: B018 (looking it up is the test)


@pytest.mark.parametrize("name", ["config", "stages"])
def test_configuration_files_of_version_0_1_still_load(name: str, tmp_path: Path):
    imports = {
        "config": "from stepwise_jax.config import DataConfig, ExperimentConfig, ModelConfig, PlanConfig",
        "stages": "from stepwise_jax.stages import Stage\nfrom stepwise_jax import ExperimentConfig",
    }
    path = tmp_path / "mine.py"
    path.write_text(f"{imports[name]}\n\ndef get_config():\n    return ExperimentConfig()\n")
    assert stepwise_jax.load_config(str(path)) == stepwise_jax.ExperimentConfig()


def test_a_configuration_imports_its_neighbour(tmp_path: Path):
    (tmp_path / "shared.py").write_text("SEED = 7\n")
    text = "from stepwise_jax import ExperimentConfig\nfrom . import shared\n"
    (tmp_path / "mine.py").write_text(f"{text}def get_config():\n    return ExperimentConfig(seed=shared.SEED)\n")
    assert stepwise_jax.load_config(str(tmp_path / "mine.py")).seed == 7


@pytest.mark.parametrize("edited", ["mine.py", "shared.py"])
def test_an_edit_of_the_same_size_in_the_same_second_counts(edited: str, tmp_path: Path):
    """Python's cache of compiled modules knows a file by its size and its second."""
    text = "from stepwise_jax import ExperimentConfig\nfrom . import shared\nB = 1\n"
    text += "def get_config():\n    return ExperimentConfig(seed=10 * shared.A + B)\n"
    (tmp_path / "shared.py").write_text("A = 1\n")
    (tmp_path / "mine.py").write_text(text)
    script = "import sys, stepwise_jax; print(stepwise_jax.load_config(sys.argv[1]).seed)"

    def load() -> str:
        for name in ("mine.py", "shared.py"):
            os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))
        words = [sys.executable, "-c", script, str(tmp_path / "mine.py")]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert load() == "11"
    path = tmp_path / edited
    path.write_text(path.read_text().replace("A = 1", "A = 2").replace("B = 1", "B = 2"))
    assert load() == ("12" if edited == "mine.py" else "21")


@pytest.mark.parametrize("folder", ["elsewhere", "."])
def test_a_path_goes_before_a_shipped_name(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert stepwise_jax.load_config("digits").data.name == "digits"
    (tmp_path / folder).mkdir(exist_ok=True)
    own = tmp_path / folder / "digits.py"
    own.write_text(
        "from stepwise_jax import ExperimentConfig\ndef get_config():\n    return ExperimentConfig(seed=3)\n"
    )
    assert stepwise_jax.load_config(f"{folder}/digits.py").seed == 3


def test_a_python_without_the_libraries_gets_a_sentence(tmp_path: Path):
    words = [sys.executable, "-S", str(ROOT / "launch.py"), "plan", "configs/digits.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no jax, flax, optax, rich, tyro: activate the environment" in done.stderr
    assert done.stderr.count("\n") == 1
