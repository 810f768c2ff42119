"""Holds the settings of how a model is timed and scored for planning. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from toolkit.planning.budget import Budget
from toolkit.planning.search.refine import EXAMPLES, ROUND_TO
from toolkit.planning.search.runoff import FINALISTS
from toolkit.record.plan import CRITERIA, SCORED_ON, Criterion, ScoredOn

TIMED_BATCHES: Final = (1, 16)


@dataclass(frozen=True)
class PlanSettings:
    """Holds the settings that all plans of one model share.

    device: the device that latency is measured on.
    batch_sizes: numbers of examples per call for which latency is measured. None stands for 1 and 16 where a budget
        limits latency, and for no timing where none does.
    threads: CPU threads of the latency measurement.
    tables: the folder that keeps scores and timings, so that planning for another budget takes seconds.
    rebuild: whether everything is scored and timed again, whatever `tables` holds.
    examples: the number of examples used of the scoring split, and of the calibration split.
    criterion: the figure that plans are compared by: the task's loss, or the distance to the dense predictions.
    scored_on: the data that the criterion is computed on.
    round_to: the number that widths are multiples of. Widths that fit the device's vectors are faster; smaller steps
        come closer to a budget of multiply-adds.
    num_finalists: the number of best plans of every family that are judged once more on fresh data; with 0 the best
        score decides.
    bypass: whether a fitted linear map of the stream may take the place of a block.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    batch_sizes: tuple[int, ...] | None = None
    threads: int = 2
    tables: Path = Path("runs") / "tables"
    rebuild: bool = False
    examples: int = EXAMPLES
    criterion: Criterion = CRITERIA[0]
    scored_on: ScoredOn = SCORED_ON[0]
    round_to: int = ROUND_TO
    num_finalists: int = FINALISTS
    bypass: bool = True

    def timed_for(self, budgets: Iterable[Budget]) -> PlanSettings:
        """Returns these settings with `batch_sizes` filled in, and with the batch sizes that budgets limit added."""
        limited = tuple(budget.batch_size for budget in budgets if budget.limits_latency)
        unless_given = TIMED_BATCHES if limited else ()
        sizes = unless_given if self.batch_sizes is None else self.batch_sizes
        return replace(self, batch_sizes=(*sizes, *limited))
