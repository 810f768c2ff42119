"""Typed readings of `StepRecord.detail`: what the reports know of each stage type; further keys are let through."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit.record.run import StepRecord


class Reading(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Change(Reading):
    before: float
    after: float


class Repair(Reading):
    """Relative squared errors of a layer's output, before and after its least-squares repair."""

    layer: str
    calibration_error: Change | None = None
    holdout_error: Change | None = None


class Round(Reading):
    """`scores`: of every block that was left in this round, when it alone is removed."""

    scores: dict[str, float | None]
    dropped: str
    repair: Repair | None = None


class BlockDropDetail(Reading):
    criterion: str
    higher_is_better: bool
    blocks: tuple[str, ...]
    rounds: tuple[Round, ...]
    dropped: tuple[str, ...] = ()


class Group(Reading):
    """Channels that are cut together; `original` is the unmodified model's width."""

    name: str
    kind: str
    original: int
    kept: int
    before: int | None = None
    asked: float | None = None


class ChannelPruneDetail(Reading):
    importance: str
    groups: tuple[Group, ...]
    repairs: tuple[Repair, ...] = ()


class CurvePoint(Reading):
    step: int
    loss: float | None = None
    validation: float | None = None


class RecoverDetail(Reading):
    steps: int
    stopped: str
    kept_step: int | None = None
    curve: tuple[CurvePoint, ...]


FORMS: dict[str, type[Reading]] = {
    "baseline": Reading,
    "block_drop": BlockDropDetail,
    "channel_prune": ChannelPruneDetail,
    "recover": RecoverDetail,
    "align": RecoverDetail,  # the same curve; the rest is shown by the recipe
}

AnyReading = TypeVar("AnyReading", bound=Reading)


def readings(steps: tuple[StepRecord, ...], form: type[AnyReading]) -> list[tuple[int, AnyReading]]:
    """(step number, detail) of every step whose stage type has this form."""
    found = [(index, reading_of(step)) for index, step in enumerate(steps)]
    return [(index, reading) for index, reading in found if isinstance(reading, form)]


def reading_of(step: StepRecord) -> Reading | None:
    """None for an unknown stage type, or a detail that lacks what its form needs; the page then shows it raw."""
    try:
        return FORMS[step.stage].model_validate(step.detail) if step.stage in FORMS else None
    except ValidationError:
        return None


def repairs_of(step: StepRecord) -> list[tuple[str, Repair]]:
    """(label, repair) in the order in which they were made."""
    reading = reading_of(step)
    if isinstance(reading, BlockDropDetail):
        rounds = enumerate(reading.rounds, start=1)
        return [(f"round {number}: {turn.repair.layer}", turn.repair) for number, turn in rounds if turn.repair]
    if isinstance(reading, ChannelPruneDetail):
        return [(repair.layer, repair) for repair in reading.repairs]
    return []
