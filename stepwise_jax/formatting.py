"""Formats numbers and names for people, and reads the paths that they type."""

import difflib
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def program_name() -> str:
    """The command that the user typed: `stepwise` if the package is installed, `python launch.py` in a clone."""
    started = Path(sys.argv[0])
    installed = started.stem == "stepwise" or started.parts[-2:] == ("stepwise_jax", "__main__.py")
    return "stepwise" if installed else "python launch.py"


def is_url(text: str) -> bool:
    """Whether a text names a place that is no path on this machine, such as `gs://bucket`."""
    return "://" in text


def parse_path(text: str) -> Path:
    """The path that a user typed, with `~` for the home folder expanded.

    Raises:
      ValueError: for a URL, a home folder that is unknown, or a relative path in a folder that no longer exists.
    """
    if is_url(text):
        raise ValueError(f"{text} is a URL: it must be a path on this machine")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: the home folder that ~ stands for is unknown") from error
    if not path.is_absolute():
        try:
            os.getcwd()
        except FileNotFoundError as error:
            raise ValueError(
                f"{text}: the current folder has been removed, so name a path that starts with /"
            ) from error
    return path


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?` for the known name that is nearest to a misspelt one; nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def replace_unprintable(name: str) -> str:
    """The name with U+FFFD for each character that cannot be printed, such as a line end or a surrogate."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def describe_progress(updates: int, planned: int, damaged: Sequence[int] = ()) -> str:
    """Which state of a run this is, and if it is not the last one, why: "8 of 118 updates (the run is unfinished)"."""
    if updates == planned:
        return f"{updates} updates"
    lost = f"the checkpoint after {' and '.join(map(str, damaged))} is damaged" if damaged else "the run is unfinished"
    return f"{updates} of {planned} updates ({lost})"


def format_percent(fraction: float | None) -> str:
    """A fraction in per cent with two decimals, or a dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


_METRIC_LABELS = {"top1": "top-1", "top5": "top-5"}


def metric_label(name: str) -> str:
    """The name of a metric in text: `top-1` for "top1", `EMA top-1` for "ema_top1", `calibration error`."""
    averaged = name.startswith("ema_")
    inner = name.removeprefix("ema_")
    label = _METRIC_LABELS.get(inner, inner.replace("_", " "))
    return f"EMA {label}" if averaged else label


def format_metric(name: str, value: float | None) -> str:
    """The value of a metric: accuracies in per cent, others with four digits, a dash for None."""
    if value is None or name.removeprefix("ema_") in _METRIC_LABELS:
        return format_percent(value)
    return f"{value:.4g}"


def describe_scores(metrics: Mapping[str, float], images: int | None = None) -> str:
    """Every metric but the losses: `top-1 97.22 % ± 1.70 on 360 images, top-5 99.72 %`.

    Args:
      metrics: by name.
      images: the number of test images, for the sampling error of top-1; None leaves it out.
    """
    shown = without_losses(metrics).items()
    errors = {}
    if images is not None and "top1" in metrics:
        errors["top1"] = format_sampling_error(metrics["top1"], images)
    return ", ".join(
        f"{metric_label(name)} {format_metric(name, value)}{errors.get(name, '')}" for name, value in shown
    )


def format_sampling_error(fraction: float, images: int) -> str:
    """The 95 % sampling error of an accuracy, in points: ` ± 14.78 on 40 images`.

    This is the normal approximation. With fewer than five correct or five wrong images it would claim too much: there,
    Wilson's interval (1927) takes its place, ` (91.24 to 100.00) on 40 images`.
    """
    count = format_count(images, "image")
    if round(min(fraction, 1 - fraction) * images) >= _FEWEST_OF_A_KIND:
        return f" ± {100 * _Z * math.sqrt(fraction * (1 - fraction) / images):.2f} on {count}"
    center = fraction + _Z**2 / (2 * images)
    half = _Z * math.sqrt(fraction * (1 - fraction) / images + _Z**2 / (4 * images**2))
    low, high = ((center + side) / (1 + _Z**2 / images) for side in (-half, half))
    return f" ({100 * abs(low):.2f} to {100 * high:.2f}) on {count}"


_Z = 1.959964
_FEWEST_OF_A_KIND = 5


def without_losses(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are no losses."""
    return {name: value for name, value in metrics.items() if not name.endswith("loss")}


def format_count(count: int, noun: str) -> str:
    """A number of things: `1 update`, `1,584 updates`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_number(value: float | None) -> str:
    """A number with three digits, or a dash for None."""
    return "–" if value is None else f"{value:.3g}"


def format_estimate(value: float | None, low: float | None, high: float | None) -> str:
    """A measured value with its interval, `104 (64.1 to 279)`; None where a value or an end is not identified."""
    shown = "not identified" if value is None else f"{value:.3g}"
    if low is None:
        return shown
    return f"{shown} (above {low:.3g})" if high is None else f"{shown} ({low:.3g} to {high:.3g})"


def describe_samples(planned: int, fed: int) -> str:
    """The two counts of a run's samples: `1,584 samples planned, 1,488 fed`.

    Args:
      planned: epochs times examples, as plans and the paper count.
      fed: what the steps took: an epoch has full batches only.
    """
    return f"{planned:,} samples planned, {fed:,} fed"


def format_operations(count: float) -> str:
    """Floating-point operations with three digits and a prefix: `65.3 GFLOP`."""
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if count >= size:
            return f"{count / size:.3g} {prefix}FLOP"
    return f"{count / 1e6:.3g} MFLOP"


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def format_mib(count: int) -> str:
    """Bytes in MiB with one decimal: `1,234.5`."""
    return f"{count / 2**20:,.1f}"
