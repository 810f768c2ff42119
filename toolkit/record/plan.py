"""Holds what a planned run keeps beside its record: the budget, the plan, and the predictions of its costs."""

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

Rank = int | Literal["full"]  # the rank of a bypass, that is, of the correction that it adds to the stream

INFEASIBLE_FILE: Final = "infeasible.txt"  # holds the reason where no plan holds a cell's budget


def _parsed(key: object) -> object:
    return MeasurementKey.parse(key) if isinstance(key, str) else key


_Key = Annotated[MeasurementKey, BeforeValidator(_parsed), PlainSerializer(lambda key: key.text, return_type=str)]


def removed_words(rank: Rank | None) -> str:
    """Returns what becomes of a dropped block in words; `rank` is that of the bypass in its place, None without one."""
    if rank is None:
        return "dropped"
    return f"replaced by a {'full map' if rank == 'full' else f'map of rank {rank}'}"


class Predicted(Data):
    """Holds the predicted costs of a plan as shares of what the dense model takes.

    latency_ratio: the latencies by their keys, all with the CPU threads of the plan.
    macs_ratio: None where the multiply-adds of the dense model are a partial count.
    """

    macs_ratio: float | None
    params_ratio: float
    latency_ratio: dict[_Key, float]


class PlanRecord(Data):
    """Describes one plan and how it was found. All losses are before fine-tuning, by the criterion.

    family: the axes that were allowed to be cut: `depth`, `width` or `combined`.
    budget: the limits as they were given, such as `latency=0.5`.
    device, batch_size, threads: what the limited latency was measured with.
    order: the order of the depth and width stages.
    criterion: the figure that plans were compared by, see `toolkit.planning.tables`.
    scored_on: the data that the criterion was computed on.
    dropped: the dropped blocks, in the order of execution.
    bypassed: for each dropped block that a bypass replaces, the rank of the bypass.
    widths: the width of every group that is cut.
    measured_latency_ratio: the limited latency of the whole plan, measured while planning; empty if it was not.
    dense_loss: the loss of the dense model.
    additive_loss: the dense loss and the sum of what the changes alone add, which the solver minimised.
    scored_loss: the loss of the plan's repaired model; None if it was not scored.
    judged_loss: the loss of the plan's model on fresh data, after the first steps of a recovery that follows; None
        where no plans were judged on fresh data.
    width_repair: the repair of the width stage.
    evaluations: the number of plans scored end to end.
    block_passes: passes of blocks made for scoring, each over the scored examples; 0 where all scores were known.
    seconds: how long planning took.
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
        """Writes `plan.json` to a folder, whole or not at all."""
        write_atomically(folder / PLAN_FILE, self.model_dump_json(indent=1) + "\n")


def _with_device(ratios: Any, device: Any) -> Any:
    """Returns latency ratios with the device added to keys that are batch sizes alone.

    Records of earlier versions name a latency by its batch size; all were eager, in float32, on the record's device.
    """
    if not isinstance(ratios, dict):
        return ratios
    return {f"{device}_batch{key}" if str(key).isdecimal() else key: ratio for key, ratio in ratios.items()}


def load_plan_record(folder: Path) -> PlanRecord:
    """Returns the record of the plan in a folder.

    Raises:
        RecordError: the file is missing or damaged.
    """
    path = folder / PLAN_FILE
    try:
        return PlanRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RecordError(f"{path}: missing or damaged ({str(error).splitlines()[0]})") from error


Criterion = Literal["loss", "distance"]

CRITERIA: tuple[Criterion, ...] = ("loss", "distance")

ScoredOn = Literal["training", "validation"]

SCORED_ON: tuple[ScoredOn, ...] = ("training", "validation")
