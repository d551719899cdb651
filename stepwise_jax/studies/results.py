"""What the runs of a comparison have found so far, read once for the terminal and the report."""

from dataclasses import dataclass
from pathlib import Path

from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_file import count_looks, read_comparison
from stepwise_jax.studies.comparison_folder import arm_differences, read_finished_runs
from stepwise_jax.studies.comparison_table import FinishedRuns
from stepwise_jax.studies.statistics.paired import Difference
from stepwise_jax.studies.statistics.predictors import ArmRuns, read_arm_runs


@dataclass(frozen=True)
class Results:
    """The contents of a comparison's folder."""

    root: Path
    comparison: Comparison
    finished: FinishedRuns
    runs: ArmRuns
    """The records of the finished runs."""

    def differences(self) -> tuple[Difference, ...]:
        """The reference and each other arm, over the looks that were planned or made."""
        return arm_differences(self.comparison, self.finished, count_looks(self.root))


def read_results(root: Path) -> Results:
    """Read the comparison in a folder, finished or not.

    Raises:
      InputError: if it is damaged, or one of its finished runs is.
    """
    comparison = read_comparison(root)
    finished = read_finished_runs(comparison, root)
    return Results(root, comparison, finished, read_arm_runs(comparison, root, finished))
