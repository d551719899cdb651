"""Measures real training steps of each network x precision x batch size, in alternating turns.

Each case is timed in two ways. `fed` does what a run does: the rows of each batch come from a `PlanSampler` through a
`ResidentLoader`, `CALLS_IN_FLIGHT` calls are in flight, and every loss reaches the host. `alone` repeats the same
compiled call on one batch and waits only at the end. Both include gathering and normalising the images, because the
compiled call does that.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from stepwise_jax.cli.bench.cases import BenchmarkCase, BenchmarkSettings
from stepwise_jax.data.batches import Inputs
from stepwise_jax.data.loaders import ResidentLoader, place_resident
from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.data.sampler import PlanSampler, split_into_calls
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.functional.preprocessing import make_preprocessing
from stepwise_jax.functional.state import TrainState
from stepwise_jax.functional.train_step import make_train_step
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import devices, sharding
from stepwise_jax.training.epoch import CALLS_IN_FLIGHT
from stepwise_jax.training.programs import step_functions
from stepwise_jax.training.programs.step_functions import count_flops, make_train_call

TURNS = 5
"""The most turns of each case, if `BenchmarkSettings.seconds` allows them."""

_IMAGES = 1024

_LEARNING_RATE = 0.001

_OPTIMIZER = make_optimizer(OptimizerConfig())


def measure(cases: Sequence[BenchmarkCase], settings: BenchmarkSettings, progress: ProgressCallback) -> dict[str, Any]:
    """Times all cases in alternating turns. A case that fails has its error in its row; the others continue.

    Args:
      cases: the combinations to measure.
      settings: settings that they share.
      progress: called before each compilation and each turn.

    Returns:
      `{"device", "devices", "versions", "image_size", "classes", "steps_per_call", "rows": [...]}`. A row has
      "network", "precision", "batch_size" and either "error" or: "images_per_second" and "milliseconds" (of a step)
      `fed`, "images_per_second_alone" and "milliseconds_alone" (all four are medians over the turns), "turns", "steps"
      (that were timed), "compile_seconds", "compile_cached", "peak_bytes" and "peak_bytes_from" ("device" or
      "program"), "flops" of a step, and "of_peak", the share of the devices' published peak while `fed`. "flops" and
      "of_peak" are None where they are unknown.
    """
    shared = _SharedResources(cases, settings)
    timers = [_CaseTimer(shared, case) for case in cases]
    for number, timer in enumerate(timers):
        progress(number, 2 * len(cases), f"compiling {timer.case}")
        timer.attempt(timer.compile)
    _measure_turns([timer for timer in timers if not timer.failed], progress, len(cases))
    progress(2 * len(cases), 2 * len(cases), "training steps measured")
    return {
        **devices.describe_environment(),
        "image_size": settings.image_size,
        "classes": settings.classes,
        "steps_per_call": settings.steps_per_call,
        "rows": [timer.row for timer in timers],
    }


def _measure_turns(timers: Sequence["_CaseTimer"], progress: ProgressCallback, compiled: int) -> None:
    for turn in range(TURNS):
        for index, timer in enumerate(timers):
            done = compiled + (turn * len(timers) + index) * compiled // (TURNS * len(timers))
            progress(done, 2 * compiled, "measuring")
            if turn < timer.turns and not timer.failed:
                timer.attempt(timer.measure_turn)
    for timer in timers:
        if not timer.failed:
            timer.summarize()


class _SharedResources:
    """Arrays on the devices that the cases share: generated images, and the initial state of each network."""

    def __init__(self, cases: Sequence[BenchmarkCase], settings: BenchmarkSettings):
        self.settings, self.mesh = settings, sharding.make_mesh()
        self.preprocessing = make_preprocessing("imagenet", settings.image_size)
        count = max(_IMAGES, *(case.batch_size for case in cases))
        self.loader = _make_loader(count, settings, self.mesh)
        self._states: dict[str, TrainState] = {}

    def copy_state(self, name: str, network: nn.Module) -> TrainState:
        """A copy of the initial state, which the caller may donate; parameters are the same at every precision."""
        if name not in self._states:
            state = step_functions.random_state(network, _OPTIMIZER, self.settings.image_size, self.mesh)
            opt_state = set_hyperparameters(state.opt_state, learning_rate=_LEARNING_RATE)
            self._states[name] = state._replace(opt_state=opt_state)
        return jax.tree.map(jnp.copy, self._states[name])


def _make_loader(count: int, settings: BenchmarkSettings, mesh: Mesh) -> ResidentLoader:
    random, side = np.random.default_rng(0), settings.image_size
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = random.integers(0, settings.classes, count)
    return ResidentLoader(place_resident(images, labels, mesh, sharded=False), mesh)


class _CaseTimer:
    """Compiles one case, times its turns, and collects its row of the document."""

    def __init__(self, shared: _SharedResources, case: BenchmarkCase):
        self._shared, self.case = shared, case
        self.row: dict[str, Any] = {
            "network": case.network_name,
            "precision": case.precision,
            "batch_size": case.batch_size,
        }
        self.turns, self._calls, self._updates = 0, 0, 0
        # Set to None by the first failure, so that the other cases can use the memory.
        self._state: Any = None
        self._call: Any = None
        self._fed_seconds: list[float] = []
        self._alone_seconds: list[float] = []

    @property
    def failed(self) -> bool:
        """Whether an attempt raised an error."""
        return "error" in self.row

    def attempt(self, action: Callable[[], None]) -> None:
        """Calls `action`. An error goes into the row, and the memory of the case is freed."""
        try:
            action()
        # A compiler or a device may raise anything.
        except Exception as error:
            self.row["error"] = devices.describe_failure(error)
            self._state = self._call = None

    def compile(self) -> None:
        """Compiles, warms up, and decides how many calls a turn has."""
        shared, loader, case = self._shared, self._shared.loader, self.case
        steps = shared.settings.steps_per_call
        before = devices.device_memory_use()
        self._state = shared.copy_state(case.network_name, case.network)
        self._order = _endless_order(len(loader.examples.labels), case.batch_size)
        (self._batch,) = loader.stacked_batches(self._order, [range(steps)])
        function = step_functions.jit_train_call(case.network, _OPTIMIZER, shared.preprocessing, shared.mesh)
        abstract = loader.abstract_inputs(steps, case.batch_size)
        compiled = step_functions.compile_train_call(function, self._state, loader.examples, abstract)
        devices.check_host_memory(compiled.new_bytes)
        self._call = compiled.call
        self._warm_up(shared.settings.seconds)
        peak = devices.peak_memory_since(before)
        self.row |= {
            "compile_seconds": compiled.seconds,
            "compile_cached": compiled.cached,
            "peak_bytes": peak or compiled.bytes,
            "peak_bytes_from": "device" if peak else "program",
            "flops": self._count_step_flops(),
        }

    def _warm_up(self, seconds: float) -> None:
        """Calls a few times, and plans turns that take about `seconds` in total, half of them in each way."""
        self._time(repeat(self._batch, 2))
        once = self._time(repeat(self._batch, 1))
        self.turns = max(1, min(TURNS, int(seconds / (2 * once))))
        self._calls = max(1, int(seconds / (2 * self.turns * once)))

    def _count_step_flops(self) -> float | None:
        loader = self._shared.loader
        call = make_train_call(make_train_step(self.case.network, _OPTIMIZER), self._shared.preprocessing)
        return count_flops(call, self._state, loader.examples, loader.abstract_inputs(1, self.case.batch_size))

    def measure_turn(self) -> None:
        """Times both ways, each after an untimed call, because another case ran before."""
        steps = self._shared.settings.steps_per_call
        numbers = range(self._updates, self._updates + self._calls * steps)
        self._time(repeat(self._batch, 1))
        # A generator: rows are drawn and placed while the clock runs, as in a run.
        fed = self._shared.loader.stacked_batches(self._order, split_into_calls(numbers, steps))
        self._fed_seconds.append(self._time(fed, fetch_losses=True) / len(numbers))
        self._updates = numbers.stop
        self._time(repeat(self._batch, 1))
        self._alone_seconds.append(self._time(repeat(self._batch, self._calls)) / len(numbers))

    def summarize(self) -> None:
        """Adds the medians to the row."""
        size = self.case.batch_size
        fed, alone = statistics.median(self._fed_seconds), statistics.median(self._alone_seconds)
        peak = devices.find_peak(jax.devices()[0].device_kind)
        flops, peak_flops = self.row["flops"], peak and peak.flops(self.case.precision)
        self.row |= {
            "images_per_second": size / fed,
            "milliseconds": 1000 * fed,
            "images_per_second_alone": size / alone,
            "milliseconds_alone": 1000 * alone,
            "turns": self.turns,
            "steps": self.turns * self._calls * self._shared.settings.steps_per_call,
            "of_peak": flops / fed / (peak_flops * jax.device_count()) if flops and peak_flops else None,
        }

    def _time(self, batches: Iterable[Inputs], *, fetch_losses: bool = False) -> float:
        """Seconds that the calls on `batches` take; `fetch_losses` copies every loss to the host, as the loop does."""
        in_flight: deque[jax.Array] = deque()
        started = time.perf_counter()
        for inputs in batches:
            self._state, losses = self._call(self._state, self._shared.loader.examples, inputs)
            in_flight.append(losses)
            while fetch_losses and len(in_flight) > CALLS_IN_FLIGHT:
                np.asarray(in_flight.popleft())
        jax.block_until_ready((self._state, list(in_flight)))
        return time.perf_counter() - started


def _endless_order(examples: int, batch_size: int) -> PlanSampler:
    stage = Stage("O", 1.0, examples, batch_size, _LEARNING_RATE, epochs=10**6)
    return PlanSampler(0, [stage], [np.arange(examples)])
