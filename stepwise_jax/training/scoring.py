"""What scoring a run's checkpoint needs: its network and its test images, without its training images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flax import linen as nn

from stepwise_jax.data import datasets, subsets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.loaders import Loader
from stepwise_jax.data.placement import Split, open_data, open_split, training_histograms
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig
from stepwise_jax.functional.preprocessing import make_preprocessing
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import agreement
from stepwise_jax.runtime.signals import stop_on_signals
from stepwise_jax.training.programs.compilation import CompiledFunctions
from stepwise_jax.training.progress import Observer, RunLog
from stepwise_jax.training.session import open_devices, open_functions
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.workdir.files import CHECKPOINTS, SUBSETS
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.signature import Signature, write_signature


@dataclass(frozen=True)
class Scoring:
    """The part of a `Session` that scores a checkpoint."""

    experiment: ExperimentConfig
    make_initial_state: Callable[[], TrainState]
    test_loader: Loader
    test_ids: tuple[str, ...]
    compiled: CompiledFunctions
    checkpoints: Checkpoints
    log: RunLog
    stop: agreement.StopAgreement


@contextmanager
def open_scoring(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    network: nn.Module,
    folder: Path,
    observers: Sequence[Observer] = (),
) -> Iterator[Scoring]:
    """Open the test images and the checkpoints of a run, to write no record and change no checkpoint.

    Raises:
      InputError: if the data has changed since the run started.
    """
    mesh = open_devices(experiment, stages, network)
    with ExitStack() as stack:
        log, config = stack.enter_context(RunLog(None, observers)), experiment.data
        dataset, placement = open_data(config, mesh, log.show_preparation)
        log.event("delivery", placement.reason)
        test = open_split(config, dataset, "test", placement, mesh, log.show_preparation)
        _check_examples(config, dataset, test, folder)
        counts = training_histograms(config, dataset)
        processing = make_preprocessing(config.normalisation, config.image_size, counts)
        shape = datasets.image_shape(dataset, config.image_size)
        write_signature(folder, Signature(processing, shape, dataset.class_names, config.name))
        opening = open_functions(experiment, network, None, dataset.class_names, processing, mesh, log)
        functions = stack.enter_context(opening)
        checkpoints = Checkpoints(folder / CHECKPOINTS, experiment.checkpoint.keep, read_only=True)
        yield Scoring(
            experiment=experiment,
            make_initial_state=functions.make_initial_state,
            test_loader=test.loader,
            test_ids=test.ids,
            compiled=functions.compiled,
            checkpoints=stack.enter_context(checkpoints),
            log=log,
            stop=agreement.StopAgreement(stack.enter_context(stop_on_signals()), mesh),
        )


def _check_examples(config: DataConfig, dataset: Dataset, test: Split, folder: Path) -> None:
    scored, _ = datasets.used_rows(config, dataset, "test")
    found = {
        "dataset": dataset.name,
        "version": dataset.version,
        "test": subsets.split_entry(test.ids, datasets.split_hashes(dataset, scored)),
    }
    if not subsets.agrees(read_json(folder / SUBSETS), found):
        raise InputError(f"{folder / SUBSETS} does not record the examples of {config.name}: the data has changed")
