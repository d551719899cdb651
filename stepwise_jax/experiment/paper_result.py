"""One row of the paper's tables and figures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StageScore:
    """Test accuracy at the end of one stage, in percent."""

    name: str
    """Training set of the stage: A, B, C, D or O."""
    top1: float
    top5: float | None = None


@dataclass(frozen=True)
class PaperResult:
    """One reported row."""

    table: str
    """Where the paper reports the row: `Table I`, `Section IV-C`, `Figure 1a`."""
    dataset: str
    network: str
    row: str
    """Title of the row; a multiple of b after an arrow is the batch size of the next stage."""
    top1: float | None = None
    """Percent, as printed; None if the paper gives no score."""
    top5: float | None = None
    """Percent, as printed; None if the paper gives no score."""
    stages: tuple[StageScore, ...] = ()
    """Scores of every stage, including the last, where a table prints them (IV to VII)."""
    notes: tuple[str, ...] = ()
    """Errors and omissions of the paper about this row, one sentence each."""
