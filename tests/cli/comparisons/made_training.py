"""Makes the runs of a comparison: each command leaves what training would have left, with made-up scores."""

import dataclasses
from collections.abc import Sequence

from made_runs import epoch_records, make_predictions, stage_record, summary

from stepwise_jax.cli.parsing.overrides import load_experiment
from stepwise_jax.data import datasets
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.studies.executors.executor import Executor
from stepwise_jax.studies.jobs import Failure, Job
from stepwise_jax.workdir.folder import config_document
from stepwise_jax.workdir.json_files import write_json
from stepwise_jax.workdir.record_file import RecordWriter


def make_training(names: list[str]):
    """A function in place of `study_commands.run_unfinished` that appends the names of its runs."""

    def train(jobs: Sequence[Job], _: Executor) -> list[Failure]:
        for job in jobs:
            if not job.done:
                _finish(job)
                names.append(job.name)
        return []

    return train


def _finish(job: Job) -> None:
    words = list(job.command[4:])
    start = words.index("--workdir")
    experiment = load_experiment(job.command[3], [*words[:start], *words[start + 2 :]], "train")
    experiment = dataclasses.replace(experiment, steps_per_call=1)
    stages = make_plan(experiment.plan, datasets.sizes(experiment.data).train, experiment.optimizer)
    # A score that depends on the rate and on the seed.
    ahead = 0.001 * (experiment.seed % 7) - abs(experiment.plan.learning_rate - 0.02)
    rows = epoch_records(stages, ahead)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / "config.json", config_document(experiment, stages, job.command[3], None, "1 x cpu"))
    with RecordWriter(job.folder) as writer:
        for place, stage in enumerate(stages, start=1):
            writer.append(stage_record(place, stage))
        for row in rows:
            writer.append(row)
    make_predictions(job.folder, wrong=range(3 + experiment.seed % 7))
    write_json(job.folder / "summary.json", summary(rows, stages))
