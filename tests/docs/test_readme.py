"""The README: short, and what it shows is what the program does."""

import re

from conftest import TinyNet

import launch
from stepwise_jax.functional import networks
from stepwise_jax.training import train as training
from tests.cli.command_line import CIFAR100, ROOT

PAGE = (ROOT / "README.md").read_text()


def test_it_takes_ten_minutes_to_read():
    assert len(PAGE.splitlines()) <= 150


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert target.startswith(("https://", "../../actions/")) or (ROOT / target).exists(), target


def test_its_plan_is_what_the_command_prints(capsys):
    printed = PAGE.partition("plan configs/cifar100_resnet50.py` ")[2].partition("```text\n")[2].partition("```")[0]
    assert launch.main(["plan", CIFAR100]) == 0
    assert printed.splitlines() == [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_its_python_runs_in_fifteen_lines(prepared_digits, tmp_path, monkeypatch, capsys):
    # Another network, because the one by name takes long to compile.
    for module in (networks, training):
        monkeypatch.setattr(module, "build_network", lambda *_: TinyNet())
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) <= 15
    exec(compile(code, "README.md", "exec"), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[:5]] == [
        ["A", "287", "16"],
        ["B", "575", "32"],
        ["C", "862", "48"],
        ["D", "1150", "64"],
        ["O", "1437", "16"],
    ]
    assert [line[:2] for line in lines[5:]] == [[name, str(epoch)] for name in "ABCDO" for epoch in (1, 2, 3, 4)]
    assert float(lines[-1][2]) > 0.5
