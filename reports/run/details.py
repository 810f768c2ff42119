"""The details of a record's steps, read as the classes that their stages name."""

from __future__ import annotations

from pydantic import ValidationError

from toolkit.record.run import StepRecord
from toolkit.stages.detail import StageDetail
from toolkit.stages.settings import STAGE_SETTINGS


def detail_of(step: StepRecord) -> StageDetail | None:
    """Returns None for a stage that is not known here, or a detail that lacks what its class needs."""
    if step.stage not in STAGE_SETTINGS:
        return None
    try:
        return STAGE_SETTINGS[step.stage].detail.model_validate(step.detail)
    except ValidationError:
        return None


def details_of(steps: tuple[StepRecord, ...]) -> list[tuple[int, StageDetail]]:
    """Returns (step number, detail) of every step whose detail can be read; step 0, the dense model, has none."""
    found = [(number, detail_of(step)) for number, step in enumerate(steps)]
    return [(number, detail) for number, detail in found if detail is not None]
