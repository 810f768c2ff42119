"""What a planned run keeps beside its record: what was asked, what was planned, and what was predicted of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data
from toolkit.stages.channel_prune.settings import Heads

PLAN_FILE: Final = "plan.json"

INFEASIBLE_FILE: Final = "infeasible.txt"  # in place of a run that no plan of its family can reach: the reason


class Predicted(Data):
    """Ratios of the dense model; latency by batch size, on the device and with the threads of the plan."""

    macs_ratio: float
    params_ratio: float
    latency_ratio: dict[int, float]


class PlanRecord(Data):
    """One plan. Losses are by its criterion (see `toolkit.planning.tables`), on `scored_on`, before fine-tuning.

    `budget` is as asked (`latency=0.5`), `dropped` and `widths` are what the plan changes. `measured_latency_ratio` is
    the limited latency of the plan, timed while planning, by batch size (empty: it was not). `additive_loss` is what
    the solver minimised, `scored_loss` that of the plan as applied (null: it was not). `evaluations` are the plans that
    were scored end to end; `block_passes` the blocks run for that, over the examples scored, 0 for what was known.
    """

    version: Literal[1] = 1
    family: Literal["depth", "width", "combined"]
    budget: str
    device: str
    batch_size: int
    threads: int
    order: str
    criterion: Criterion = "loss"
    scored_on: ScoredOn = "training"
    dropped: tuple[str, ...]
    widths: dict[str, int | Heads]
    predicted: Predicted
    measured_latency_ratio: dict[int, float] = Field(default_factory=dict)
    dense_loss: float
    additive_loss: float
    scored_loss: float | None
    evaluations: int
    block_passes: float
    seconds: float

    def save(self, folder: Path) -> None:
        write_atomically(folder / PLAN_FILE, self.model_dump_json(indent=1) + "\n")


def load_plan_record(folder: Path) -> PlanRecord:
    """Raises: RecordError: there is no such file, or it is damaged."""
    path = folder / PLAN_FILE
    try:
        return PlanRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RecordError(f"{path}: missing or damaged ({str(error).splitlines()[0]})") from error


Criterion = Literal["loss", "distance"]

CRITERIA: tuple[Criterion, ...] = ("loss", "distance")

ScoredOn = Literal["training", "validation"]

SCORED_ON: tuple[ScoredOn, ...] = ("training", "validation")
