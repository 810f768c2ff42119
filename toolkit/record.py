"""The run record: the append-only truth of one run, and the only thing that reports read. Nothing here imports torch.

Raw samples are stored; medians and ratios are computed on reading.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from operator import truediv
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from toolkit.errors import RecordError
from toolkit.recipe import Recipe, content_sha256

SCHEMA_VERSION: Final = 1
RUN_FILE = "run.json"


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Samples = Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)]


class Macs(Entry):
    """Multiply-adds of one example. fvcore calls them "flops"; a floating-point operation count would be twice this."""

    total: Annotated[int, Field(ge=0)]  # matrix products, convolutions, scaled dot-product attention
    normalisation: int  # kept apart: fvcore counts these per element, not as multiply-adds
    by_operator: dict[str, int]
    uncounted: dict[str, int]  # operator -> number of calls that carry no count


class Latency(Entry):
    """Seconds per forward call. The dense model is timed in turns with this one, so `ratio` is of the same moment."""

    device: str
    batch_size: int
    threads: int
    dtype: str
    samples_s: Samples
    dense_samples_s: Samples

    @property
    def median_s(self) -> float:
        return statistics.median(self.samples_s)

    @property
    def dense_median_s(self) -> float:
        return statistics.median(self.dense_samples_s)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of each sample to the dense model's that was taken in turn with it; below 1 is faster than dense."""
        return paired_ratios(self.samples_s, self.dense_samples_s)

    @property
    def ratio(self) -> float:
        """The median of `ratios`: steadier than a ratio of medians where the machine has faster and slower moments."""
        return statistics.median(self.ratios)

    def percentile_s(self, percent: int) -> float:
        return percentile(self.samples_s, percent)

    @model_validator(mode="after")
    def _in_pairs(self) -> Latency:
        paired_ratios(self.samples_s, self.dense_samples_s)
        return self


def paired_ratios(samples_s: Sequence[float], others_s: Sequence[float]) -> tuple[float, ...]:
    """ValueError if there are more of one than of the other."""
    if len(samples_s) != len(others_s):
        raise ValueError(f"it has {len(samples_s)} samples of one model and {len(others_s)} of the other")
    return tuple(map(truediv, samples_s, others_s))


def percentile(values: Sequence[float], percent: int) -> float:
    """`percent` in 1..99, by linear interpolation."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


class Quality(Entry):
    metric: str
    split: str
    value: float
    num_examples: int
    interval: tuple[float, float] | None = None  # 95 %, bootstrap over the examples
    details: dict[str, float] = {}  # e.g. {"mAP@0.5": 0.71}


class Segment(Entry):
    """A labelled stretch of time, in seconds; `score` is 1 for ground truth."""

    start_s: float
    end_s: float
    label: str
    score: float = 1.0


class Timeline(Entry):
    """One test stream with its true and predicted segments."""

    stream: str
    duration_s: float
    truth: tuple[Segment, ...]
    predicted: tuple[Segment, ...]


class Measurement(Entry):
    macs: Macs
    num_params: Annotated[int, Field(ge=1)]
    latency: tuple[Latency, ...]
    quality: tuple[Quality, ...]
    timeline: Timeline | None = None

    def quality_on(self, split: str) -> Quality | None:
        return next((quality for quality in self.quality if quality.split == split), None)

    def latency_at(self, batch_size: int) -> Latency | None:
        """On the run's own device, which comes first."""
        return next((latency for latency in self.latency if latency.batch_size == batch_size), None)


class StepRecord(Entry):
    """Step 0 is the baseline (`stage == "baseline"`); step i > 0 is stage i - 1 of the recipe.

    `detail` is plain JSON and enough to redo the step without choosing again.
    """

    stage: str
    detail: dict[str, Any]
    seconds: float
    measurement: Measurement


class Environment(Entry):
    python: str
    platform: str
    processor: str
    num_cores: int
    gpu: str | None
    threads: int | None = None  # that torch computes with; sums depend on it in their last digits
    packages: dict[str, str]


class RunRecord(Entry):
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
        if self.steps and self.baseline.measurement.macs.total == 0:
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


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`; a crash leaves either the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _model_of(record: RunRecord) -> str | None:
    """A zoo model and its settings, in words; the examples are part of what quality means."""
    model = record.recipe.model
    return None if model is None else json.dumps(model.model_dump(mode="json"), sort_keys=True)


def differences(first: RunRecord, second: RunRecord) -> list[str]:
    """What keeps two runs from being compared: task, device, settings of the measurement, processor, versions."""
    pairs = {
        "task": (first.recipe.task, second.recipe.task),
        "model": (_model_of(first), _model_of(second)),
        "device": (first.recipe.device, second.recipe.device),
        "batch sizes": (first.recipe.measure.batch_sizes, second.recipe.measure.batch_sizes),
        "threads": (first.recipe.measure.threads, second.recipe.measure.threads),
        "processor": (first.environment.processor, second.environment.processor),
        "gpu": (first.environment.gpu, second.environment.gpu),
        "torch": (first.environment.packages.get("torch"), second.environment.packages.get("torch")),
    }
    return [f"{name}: {one} against {other}" for name, (one, other) in pairs.items() if one != other]
