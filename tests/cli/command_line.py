"""Commands as a user types them, and the one line of those that must fail."""

from pathlib import Path

import launch

ROOT = Path(__file__).parents[2]
DIGITS, CIFAR100 = str(ROOT / "configs" / "digits.py"), str(ROOT / "configs" / "cifar100_resnet50.py")


def fails(capsys, *words: str) -> str:
    """Runs a command that must fail with exit status 2, and returns its only line of output."""
    assert launch.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert err.count("\n") == 1, err
    return err
