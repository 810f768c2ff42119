"""Reads the details of a record's steps as the classes that their stages name."""

from __future__ import annotations

from pydantic import ValidationError

from toolkit.record.run import StepRecord
from toolkit.stages.detail import StageDetail
from toolkit.stages.settings import STAGE_SETTINGS


def detail_of(step: StepRecord) -> StageDetail | None:
    """Returns the detail of a step, or None if its stage is not known or the detail lacks what the class needs."""
    if step.stage not in STAGE_SETTINGS:
        return None
    try:
        return STAGE_SETTINGS[step.stage].detail.model_validate(step.detail)
    except ValidationError:
        return None


def details_of(steps: tuple[StepRecord, ...]) -> list[tuple[int, StageDetail]]:
    """Returns (step number, detail) of every step whose detail can be read; step 0, the dense model, has none."""
    details = [(number, detail_of(step)) for number, step in enumerate(steps)]
    return [(number, detail) for number, detail in details if detail is not None]
