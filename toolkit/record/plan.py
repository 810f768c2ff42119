"""What a planned run keeps beside its record: what was asked, what was planned, and what was predicted of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data
from toolkit.measure.results import MeasurementKey
from toolkit.stages.channel_prune.settings import Heads, WidthRepair

PLAN_FILE: Final = "plan.json"

Rank = int | Literal["full"]  # of a bypass: of the correction that it adds to the stream

INFEASIBLE_FILE: Final = "infeasible.txt"  # in place of a run that no plan of its family can reach: the reason


def _parsed(key: object) -> object:
    return MeasurementKey.parse(key) if isinstance(key, str) else key


_Key = Annotated[MeasurementKey, BeforeValidator(_parsed), PlainSerializer(lambda key: key.text, return_type=str)]


def removed_words(rank: Rank | None) -> str:
    """Returns what becomes of a block that goes, in words. rank: of the bypass in its place; None: there is none."""
    if rank is None:
        return "dropped"
    return f"replaced by a {'full map' if rank == 'full' else f'map of rank {rank}'}"


class Predicted(Data):
    """Ratios of the dense model; latency by what it is of, with the threads of the plan.

    macs_ratio: None where the multiply-adds of the dense model are a partial count.
    """

    macs_ratio: float | None
    params_ratio: float
    latency_ratio: dict[_Key, float]


class PlanRecord(Data):
    """One plan. Losses are by its criterion (see `toolkit.planning.tables`), on `scored_on`, before fine-tuning.

    `budget` is as asked (`latency=0.5`), `dropped` and `widths` are what the plan changes; `bypassed` are those of the
    dropped blocks in whose places there is a bypass, with its rank. `measured_latency_ratio` is the limited latency of
    the plan, timed while planning, by what it is of (empty: it was not). `additive_loss` is what the solver minimised,
    `scored_loss` that of the plan as applied (null: it was not), `judged_loss` that on fresh data, after the first
    steps of a recovery that follows (null: there was no runoff). `width_repair` is that of the width stage.
    `evaluations` are the plans that were scored end to end; `block_passes` the blocks run for that, over the examples
    scored, 0 for what was known.
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
    bypassed: dict[str, Rank] = Field(default_factory=dict)
    widths: dict[str, int | Heads]
    predicted: Predicted
    measured_latency_ratio: dict[_Key, float] = Field(default_factory=dict)
    dense_loss: float
    additive_loss: float
    scored_loss: float | None
    judged_loss: float | None = None
    width_repair: WidthRepair = "closed_form"
    evaluations: int
    block_passes: float
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        device, predicted = data.get("device"), data.get("predicted")
        if isinstance(predicted, dict):
            predicted = {name: _with_device(value, device) for name, value in predicted.items()}
        measured = _with_device(data.get("measured_latency_ratio", {}), device)
        return data | {"predicted": predicted, "measured_latency_ratio": measured}

    def save(self, folder: Path) -> None:
        write_atomically(folder / PLAN_FILE, self.model_dump_json(indent=1) + "\n")


def _with_device(ratios: Any, device: Any) -> Any:
    """Returns ratios with whole keys in the place of batch sizes.

    Records of earlier versions name a latency by its batch size; all were eager, in float32, on the record's device.
    """
    if not isinstance(ratios, dict):
        return ratios
    return {f"{device}_batch{key}" if str(key).isdecimal() else key: ratio for key, ratio in ratios.items()}


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
