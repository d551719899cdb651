"""How fast this machine trains: real training steps of each network x precision x batch size, turn by turn.

Two ways are timed. `fed` is what a run does: the rows of each batch come from a `PlanOrder` through a `ResidentLoader`,
`CALLS_IN_FLIGHT` calls are under way, and every loss reaches the host. `alone` is the same compiled call on one batch
over and over, with a wait at the end only. Both gather and normalise the images, which the compiled call does.
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

from stepwise_jax.cli.bench.cases import Case, Setting
from stepwise_jax.data.batches import Inputs
from stepwise_jax.data.loaders import ResidentLoader, place_resident
from stepwise_jax.data.progress import Progress
from stepwise_jax.data.sampler import PlanOrder, calls
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.functional.preprocessing import make_preprocessing
from stepwise_jax.functional.state import TrainState
from stepwise_jax.functional.train_step import make_train_step
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import devices, sharding
from stepwise_jax.training import step_functions
from stepwise_jax.training.epoch import CALLS_IN_FLIGHT
from stepwise_jax.training.step_functions import TrainCall, count_flops, make_train_call

TURNS = 5
"""Turns of each way, where the seconds allow so many."""

_IMAGES = 1024

_LEARNING_RATE = 0.001

_OPTIMIZER = make_optimizer(OptimizerConfig())


def measure(cases: Sequence[Case], setting: Setting, progress: Progress) -> dict[str, Any]:
    """Times all cases, by turns; a case that fails is told in its row, and the others go on.

    Args:
      cases: what to measure.
      setting: what they share.
      progress: told of what is under way.

    Returns:
      `{"device", "devices", "versions", "image_size", "classes", "steps_per_call", "rows": [...]}`. A row has
      "network", "precision", "batch_size" and either "error" or: "images_per_second" and "milliseconds" a step `fed`
      and "images_per_second_alone" and "milliseconds_alone" (medians over the turns), "turns", "steps" that were
      timed, "compile_seconds", "compile_cached", "peak_bytes" and "peak_bytes_from" ("device" or "program"), "flops"
      a step, and "of_peak", the share of the devices' published peak while `fed` ("flops" and "of_peak" are None
      where they are not known).
    """
    bench = _Bench(cases, setting)
    rows, runners = [], []
    for number, case in enumerate(cases):
        progress(number, 2 * len(cases), f"compiling {case}")
        runner = _Runner(bench, case)
        if runner.attempt(runner.open):
            runners.append(runner)
        rows.append(runner.row)
    _take_turns(runners, progress, len(cases))
    progress(2 * len(cases), 2 * len(cases), "training steps measured")
    described = {"image_size": setting.image_size, "classes": setting.classes, "steps_per_call": setting.steps_per_call}
    return {**devices.describe(), **described, "rows": rows}


def _take_turns(runners: list["_Runner"], progress: Progress, done: int) -> None:
    for turn in range(TURNS):
        for place, runner in enumerate(runners):
            progress(done + (turn * len(runners) + place) * done // (TURNS * len(runners)), 2 * done, "measuring")
            if turn < runner.turns and "error" not in runner.row:
                runner.attempt(runner.take_turn)
    for runner in runners:
        if "error" not in runner.row:
            runner.finish()


class _Bench:
    """What the cases share on the devices: made images, and the first state of each network."""

    def __init__(self, cases: Sequence[Case], setting: Setting):
        self.setting, self.mesh = setting, sharding.make_mesh()
        self.preprocessing = make_preprocessing("imagenet", setting.image_size)
        count = max(_IMAGES, *(case.batch_size for case in cases))
        self.feed = _made_feed(count, setting, self.mesh)
        self._states: dict[str, TrainState] = {}

    def state(self, name: str, network: nn.Module) -> TrainState:
        """A state that may be given away; parameters are the same at every precision."""
        if name not in self._states:
            state = step_functions.first_state(network, _OPTIMIZER, self.setting.image_size, self.mesh)
            opt_state = set_hyperparameters(state.opt_state, learning_rate=_LEARNING_RATE)
            self._states[name] = state._replace(opt_state=opt_state)
        return jax.tree.map(jnp.copy, self._states[name])


def _made_feed(count: int, setting: Setting, mesh: Mesh) -> ResidentLoader:
    random, side = np.random.default_rng(0), setting.image_size
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ResidentLoader(place_resident(images, random.integers(0, setting.classes, count), mesh, sharded=False), mesh)


class _Runner:
    """One case: compiled, with its state, and the times of its turns."""

    def __init__(self, bench: _Bench, case: Case):
        self._bench, self._case = bench, case
        self.row: dict[str, Any] = {
            "network": case.name,
            "precision": case.precision,
            "batch_size": case.batch_size,
        }
        self.turns, self._calls, self._updates = 0, 0, 0
        # None from the first failure on, so that the others have the memory.
        self._state: Any = None
        self._call: Any = None
        self._times: dict[str, list[float]] = {"fed": [], "alone": []}

    def attempt(self, act: Callable[[], None]) -> bool:
        """Whether `act` ends well; what goes wrong is kept in the row, and memory is given back."""
        try:
            act()
        # Whatever a compiler or a device comes up with belongs into the row.
        except Exception as error:
            self.row["error"] = devices.told(error)
            self._state = self._call = None
        return "error" not in self.row

    def open(self) -> None:
        """Compiles, warms up, and decides how many calls a turn has."""
        setting, feed, mesh = self._bench.setting, self._bench.feed, self._bench.mesh
        case, steps = self._case, setting.steps_per_call
        before = devices.device_memory()
        self._state = self._bench.state(case.name, case.network)
        self._order = _endless_order(len(feed.examples.labels), case.batch_size)
        (self._batch,) = feed.calls(self._order, [range(steps)])
        function = step_functions.train_function(case.network, _OPTIMIZER, self._bench.preprocessing, mesh)
        abstract = feed.abstract(steps, case.batch_size)
        compiled = step_functions.compile_call(function, self._state, feed.examples, abstract)
        devices.check_room(compiled.new_bytes)
        self._call = compiled.call
        self._time(repeat(self._batch, 2))
        once = self._time(repeat(self._batch, 1))
        self.turns = max(1, min(TURNS, int(setting.seconds / (2 * once))))
        self._calls = max(1, int(setting.seconds / (2 * self.turns * once)))
        peak = devices.peak_since(before)
        single = feed.abstract(1, case.batch_size)
        self.row |= {
            "compile_seconds": compiled.seconds,
            "compile_cached": compiled.cached,
            "peak_bytes": peak or compiled.bytes,
            "peak_bytes_from": "device" if peak else "program",
            "flops": count_flops(self._step(), self._state, feed.examples, single),
        }

    def _step(self) -> TrainCall:
        return make_train_call(make_train_step(self._case.network, _OPTIMIZER), self._bench.preprocessing)

    def take_turn(self) -> None:
        """Times both ways; the first call after another case's turn is not counted."""
        steps = self._bench.setting.steps_per_call
        for way, times in self._times.items():
            self._time(repeat(self._batch, 1))
            numbers = range(self._updates, self._updates + self._calls * steps)
            fed = self._bench.feed.calls(self._order, calls(numbers, steps))
            # A generator: rows are drawn and placed while the clock runs, as in a run.
            seconds = self._time(fed if way == "fed" else repeat(self._batch, self._calls), follow=way == "fed")
            self._updates = numbers.stop if way == "fed" else self._updates
            times.append(seconds / len(numbers))

    def finish(self) -> None:
        """Puts the medians into the row."""
        size = self._case.batch_size
        fed, alone = (statistics.median(self._times[way]) for way in ("fed", "alone"))
        peak = devices.find(jax.devices()[0].device_kind)
        flops, most = self.row["flops"], peak and peak.flops(self._case.precision)
        self.row |= {
            "images_per_second": size / fed,
            "milliseconds": 1000 * fed,
            "images_per_second_alone": size / alone,
            "milliseconds_alone": 1000 * alone,
            "turns": self.turns,
            "steps": self.turns * self._calls * self._bench.setting.steps_per_call,
            "of_peak": flops / fed / (most * jax.device_count()) if flops and most else None,
        }

    def _time(self, fed: Iterable[Inputs], *, follow: bool = False) -> float:
        """Seconds of calls on what is fed; `follow` brings every loss to the host, as the loop does."""
        under_way: deque[jax.Array] = deque()
        started = time.perf_counter()
        for inputs in fed:
            self._state, losses = self._call(self._state, self._bench.feed.examples, inputs)
            under_way.append(losses)
            while follow and len(under_way) > CALLS_IN_FLIGHT:
                np.asarray(under_way.popleft())
        jax.block_until_ready((self._state, list(under_way)))
        return time.perf_counter() - started


def _endless_order(examples: int, batch_size: int) -> PlanOrder:
    stage = Stage("O", 1.0, examples, batch_size, _LEARNING_RATE, epochs=10**6)
    return PlanOrder(0, [stage], [np.arange(examples)])
