"""What is known of an exported file; kept as JSON beside it. Raw samples are stored, ratios are computed on reading."""

from __future__ import annotations

import math
import statistics
from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Data
from toolkit.measure.results import Environment, Samples, paired_ratios

Format = Literal["onnx", "torch_export"]

FORMATS: tuple[Format, ...] = ("onnx", "torch_export")

SUFFIX: dict[Format, str] = {"onnx": ".onnx", "torch_export": ".pt2"}

TOLERANCE = 1e-4  # right for float32


class ExportSettings(Data):
    """How to export.

    `batch_size`: the file is checked at 1 and at this many examples (default 2). A file of any batch size is tried
    first; `static_batch` asks for one of exactly `batch_size` (default 1) examples.
    `tolerance`: the largest difference, as a share of an output's largest number.
    `threads`: of ONNX Runtime and of the timing; None is torch's number. `latency_repeats`: samples per batch size.
    """

    format: Format
    batch_size: Annotated[int, Field(ge=1)] | None = None
    static_batch: bool = False
    opset: Annotated[int, Field(ge=1)] | None = None
    tolerance: Annotated[float, Field(gt=0.0)] = TOLERANCE
    threads: Annotated[int, Field(ge=1)] | None = None
    latency_repeats: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> ExportSettings:
        if self.opset is not None and self.format != "onnx":
            raise ValueError(f"opset is for the format onnx, not for {self.format}; leave it out")
        return self

    @property
    def sizes(self) -> tuple[int, int]:
        """The batch sizes at which the file is checked."""
        return (1, 2 if self.batch_size in (None, 1) else self.batch_size)


class TensorInfo(Data):
    """An input or output; a dimension that is not fixed is an expression in `batch`."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Parity(Data):
    """How far an output of the exported file is from the model's, both on the CPU and on the same inputs."""

    output: str
    batch_size: int
    difference: Annotated[float, Field(ge=0.0)]  # the largest absolute one
    scale: Annotated[float, Field(ge=0.0)]  # the largest absolute number in the model's output

    @property
    def relative(self) -> float:
        """The difference over the scale; where the model's output is all zeros, 0 or infinity."""
        if self.difference == 0.0:
            return 0.0
        return self.difference / self.scale if self.scale > 0.0 else math.inf


class ExportedLatency(Data):
    """Seconds per call on the CPU, timed in turns with the model as PyTorch runs it (eager)."""

    batch_size: int
    threads: int
    samples_s: Samples
    eager_samples_s: Samples

    @property
    def median_s(self) -> float:
        return statistics.median(self.samples_s)

    @property
    def eager_median_s(self) -> float:
        return statistics.median(self.eager_samples_s)

    @property
    def ratio(self) -> float:
        """The median of the ratios of samples taken in turns; below 1 is faster than eager."""
        return statistics.median(paired_ratios(self.samples_s, self.eager_samples_s))


class ExportedFile(Data):
    name: str
    bytes: int
    sha256: str


class ExportReport(Data):
    """`files`: the exported file, then the one with its weights where ONNX must keep them apart (from 2 GB)."""

    version: Literal[1] = 1
    settings: ExportSettings
    files: tuple[ExportedFile, ...]
    opset: int | None  # of ONNX
    batch_size: int | None  # None: any
    fixed_because: str | None = None  # why the batch size is fixed though nobody asked for that
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    parity: tuple[Parity, ...]
    latency: tuple[ExportedLatency, ...] = ()
    weights_sha256: str | None  # of the saved model's weights
    environment: Environment

    @property
    def worst(self) -> Parity:
        return max(self.parity, key=lambda parity: parity.relative)
