"""The run record: the append-only truth of one run, and the only thing that reports read. Nothing here imports torch.

Raw samples are stored; medians and ratios are computed on reading.
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
FAILED_FILE = "failed.txt"  # in the place of a record: why a cell of a sweep came to nothing


class StepRecord(Data):
    """Step 0 is the baseline (`stage == "baseline"`); step i > 0 is stage i - 1 of the recipe.

    `detail` is plain JSON and enough to redo the step without choosing again.
    """

    stage: str
    detail: dict[str, Any]
    seconds: float
    measurement: Measurement


class RunRecord(Data):
    schema_version: Literal[1] = SCHEMA_VERSION
    recipe: Recipe
    recipe_sha256: str
    environment: Environment
    finished: bool = False
    steps: tuple[StepRecord, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> RunRecord:
        """The steps are those of the recipe, in order, and all of them where the run is finished."""
        planned = ["baseline", *(stage.type for stage in self.recipe.stages)]
        done = [step.stage for step in self.steps]
        if done != planned[: len(done)]:
            raise ValueError(f"its steps are {', '.join(done)}, but its recipe's are {', '.join(planned)}")
        if self.steps and self.baseline.measurement.macs.total == 0 and not self.baseline.measurement.macs.is_partial:
            raise ValueError("its dense model has no MACs")
        if self.finished and len(done) < len(planned):
            raise ValueError(f"it says finished after {len(done)} of {len(planned)} steps")
        return self

    @property
    def baseline(self) -> StepRecord:
        return self.steps[0]

    def with_step(self, step: StepRecord) -> RunRecord:
        return self.model_copy(update={"steps": (*self.steps, step)})

    def save(self, directory: Path) -> None:
        """Write `run.json` whole or not at all."""
        write_atomically(directory / RUN_FILE, self.model_dump_json(indent=1) + "\n")


def load_record(directory: Path) -> RunRecord:
    """Read a run's record.

    Raises:
        RecordError: no such file, not JSON, of another schema version, or inconsistent with its own recipe.
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
