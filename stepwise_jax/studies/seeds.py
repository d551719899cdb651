"""What differs between the seeds of a comparison: every stream of random numbers, or some of them."""

from collections.abc import Sequence

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import flatten_fields, override_fields
from stepwise_jax.formatting import suggest

STREAM_FIELDS = {
    "init": "streams.init",
    "order": "streams.order",
    "subset": "streams.subset",
    "sample": "data.sample_seed",
}
"""The fields that hold the seeds of single streams."""

STREAM_LABELS = {
    "init": "initial weights",
    "order": "order of the examples",
    "subset": "subsets",
    "sample": "choice of training images",
}
"""What single streams decide, in words."""


def _fields(vary: Sequence[str]) -> tuple[str, ...]:
    return tuple(STREAM_FIELDS[name] for name in vary) or ("seed",)


def seed_arguments(vary: Sequence[str], seed: int) -> tuple[str, ...]:
    """The command-line arguments of the runs with a seed.

    Args:
      vary: the streams that the seed sets; empty: all of them, as `seed` does.
      seed: of the runs.
    """
    return tuple(word for name in _fields(vary) for word in (f"--{name}", str(seed)))


def with_seed(experiment: ExperimentConfig, vary: Sequence[str], seed: int) -> ExperimentConfig:
    """The experiment of the runs with a seed; see `seed_arguments`."""
    return override_fields(experiment, dict.fromkeys(_fields(vary), seed))


def check_vary(vary: Sequence[str], experiment: ExperimentConfig) -> None:
    """Check that streams can differ between the runs of an experiment.

    Raises:
      InputError: for a stream that is unknown or repeated, that the experiment sets, or that changes nothing in it.
    """
    given, data = f"--vary {','.join(vary)}", experiment.data
    for name in vary:
        if name not in STREAM_FIELDS:
            known = ", ".join(STREAM_FIELDS)
            raise InputError(f"{given}: {name!r} is no stream: they are {known}{suggest(name, STREAM_FIELDS)}")
        if flatten_fields(experiment)[STREAM_FIELDS[name]] is not None:
            raise InputError(f"{given}: {STREAM_FIELDS[name]} is set, and would have no effect: leave it out")
    if len(set(vary)) < len(vary):
        raise InputError(f"{given}: each stream can be named once")
    if {"subset", "sample"} & set(vary) and data.subset_draw == "tfds":
        raise InputError(f"{given}: data.subset_draw 'tfds' draws the same for every seed: take seeded or stratified")
    if "sample" in vary and data.train_examples is None:
        raise InputError(f"{given}: without data.train_examples every run takes the whole training set")


def describe_vary(vary: Sequence[str], seed: int) -> str:
    """What differs between the seeds, in one sentence; empty where everything does."""
    if not vary:
        return ""
    differing = ", ".join(STREAM_LABELS[name] for name in vary)
    held = [label for name, label in STREAM_LABELS.items() if name not in vary and name != "sample"]
    rest = f"; held at seed {seed}: {', '.join(held)}" if held else ""
    return f"What differs between the seeds: {differing}{rest}."
