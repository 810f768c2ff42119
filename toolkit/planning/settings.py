"""How a model is timed and scored for planning. Nothing here imports torch."""

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
    """What holds for every plan of one model.

    device: where latency is measured.
    batch_sizes: examples per call for which latency is measured. None stands for 1 and 16, and for no timing at all
        where no budget limits latency.
    threads: CPU threads of the latency measurement.
    tables: the folder in which scores and timings are kept, so that another budget costs seconds.
    rebuild: score and time everything again, whatever is kept in `tables`.
    examples: number of examples of the scoring split and of the calibration split that are used.
    criterion: the figure that plans are compared by, the task's loss or the distance to the dense predictions.
    scored_on: the data on which the criterion is computed.
    round_to: the number that widths are multiples of. Widths that fit the device's vectors are faster; smaller steps
        come closer to a budget of multiply-adds.
    num_finalists: the best plans of every family that are judged once more on fresh data; with 0 the best score
        decides.
    bypass: a fitted linear map of the stream may take the place of a block, beside keeping and dropping it.
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
        """Returns these settings with all batch sizes named: those given, and those whose latency a budget limits."""
        limited = tuple(budget.batch_size for budget in budgets if budget.limits_latency)
        unless_given = TIMED_BATCHES if limited else ()
        sizes = unless_given if self.batch_sizes is None else self.batch_sizes
        return replace(self, batch_sizes=(*sizes, *limited))
