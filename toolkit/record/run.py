"""Holds the run record: all that is known of one run, and all that reports read. Nothing here imports torch.

Steps are only ever added. Raw samples are stored; medians and ratios are computed on reading.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError, model_validator

from toolkit.base.errors import RecordError
from toolkit.base.files import content_sha256, write_atomically
from toolkit.base.settings import Data
from toolkit.measure.results import Environment, Measurement
from toolkit.recipe.recipe import Recipe

SCHEMA_VERSION: Final = 1

RUN_FILE = "run.json"
FAILED_FILE = "failed.txt"  # holds the reason where a stage of a sweep's cell failed


class StepRecord(Data):
    """Describes one step of a run; step 0 is the baseline, and step i > 0 is stage i - 1 of the recipe.

    stage: the type of the stage, or `baseline`.
    detail: plain JSON that suffices to redo the step without choosing again.
    seconds: how long the stage and the measurement after it took.
    """

    stage: str
    detail: dict[str, Any]
    seconds: float
    measurement: Measurement


class RunRecord(Data):
    """Describes one run: its recipe, the environment, and one step per stage that was finished.

    recipe_sha256: the hash of the recipe as it was written, whatever version reads the record.
    finished: whether all stages were applied and the model was saved.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    recipe: Recipe
    recipe_sha256: str
    environment: Environment
    finished: bool = False
    steps: tuple[StepRecord, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> RunRecord:
        """Refuses steps that are not the recipe's in its order, and a finished run that lacks one."""
        planned = ["baseline", *(stage.type for stage in self.recipe.stages)]
        done = [step.stage for step in self.steps]
        if done != planned[: len(done)]:
            raise ValueError(
                f"the steps of the record are {', '.join(done)}, but its recipe's are {', '.join(planned)}"
            )
        if self.steps and self.baseline.measurement.macs.total == 0 and not self.baseline.measurement.macs.is_partial:
            raise ValueError("the MACs of its dense model are 0")
        if self.finished and len(done) < len(planned):
            raise ValueError(f"the record says finished after {len(done)} of {len(planned)} steps")
        return self

    @property
    def baseline(self) -> StepRecord:
        """Returns the step that measured the dense model."""
        return self.steps[0]

    def with_step(self, step: StepRecord) -> RunRecord:
        """Returns the record with one more step."""
        return self.model_copy(update={"steps": (*self.steps, step)})

    def save(self, directory: Path) -> None:
        """Writes `run.json` to a folder, whole or not at all."""
        write_atomically(directory / RUN_FILE, self.model_dump_json(indent=1) + "\n")


def load_record(directory: Path) -> RunRecord:
    """Returns the record of the run in a folder.

    Raises:
        RecordError: the file is missing, not JSON, of another schema version, or does not agree with its own recipe.
    """
    path = directory / RUN_FILE
    try:
        content = path.read_bytes()
        record = RunRecord.model_validate_json(content)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); is {directory} the folder of a run?") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RecordError(f"{path}: damaged or not a run record: {place}: {first['msg']}") from error
    if record.recipe_sha256 != content_sha256(json.loads(content)["recipe"]):  # as written, by whatever version
        raise RecordError(f"{path}: the recipe in the record does not match its hash; the file was changed by hand")
    return record
