"""Holds the report of an exported file, which is kept as JSON beside the file.

Raw samples are stored; medians and ratios are computed on reading.
"""

from __future__ import annotations

import math
import statistics
from typing import Annotated, Literal

from pydantic import Field

from toolkit.base.settings import Data
from toolkit.exporting.axes import NamedAxis
from toolkit.measure.results import Environment, Latency, Samples, paired_ratios


class ExportSettings(Data):
    """Holds the settings of an export; a format refuses those of its settings that it does not take.

    format: the name of the format, one of `toolkit.exporting.formats.registry`.
    batch_size: the file is checked at 1 example and at this many (None: 2). A file of fixed batch size is for this many
        examples (None: 1).
    static_batch: whether the batch size is fixed. Otherwise a file of any batch size is made where that is possible.
    dynamic: further axes of inputs whose size is left open.
    opset: the ONNX opset; None stands for torch's own.
    tolerance: the largest difference that is allowed, as a share of an output's largest absolute number; None stands
        for the format's.
    threads: CPU threads of ONNX Runtime and of the timing; None stands for torch's number.
    latency_repeats: latency samples per batch size; 0 measures no latency.
    against_dense: whether the unmodified model is written in the same format, and the two files are timed in turns.
    constant_options: whether a dynamic layer takes the option that its gate takes most often, for every input.
    """

    format: str
    batch_size: Annotated[int, Field(ge=1)] | None = None
    static_batch: bool = False
    dynamic: tuple[NamedAxis, ...] = ()
    opset: Annotated[int, Field(ge=1)] | None = None
    tolerance: Annotated[float, Field(gt=0.0)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    latency_repeats: Annotated[int, Field(ge=0)] = 0
    against_dense: bool = False
    constant_options: bool = False

    @property
    def sizes(self) -> tuple[int, int]:
        """Returns the two batch sizes at which the file is checked."""
        return (1, 2 if self.batch_size in (None, 1) else self.batch_size)

    def given(self) -> list[str]:
        """Returns the names of the settings whose values are not the defaults."""
        return [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]


class TensorInfo(Data):
    """Describes an input or output.

    shape: a dimension that is not fixed is an expression in `batch` or in a named axis, such as `2*batch`.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Parity(Data):
    """Says how far an output of the exported file is from the model's, both on the CPU and on the same inputs.

    output: the name of the output.
    axes: the sizes of the named axes, where they are not those of the example inputs.
    difference: the largest absolute difference.
    scale: the largest absolute number in the model's output.
    """

    output: str
    batch_size: int
    axes: dict[str, int] = Field(default_factory=dict)
    difference: Annotated[float, Field(ge=0.0)]
    scale: Annotated[float, Field(ge=0.0)]

    @property
    def size(self) -> str:
        """Returns the batch size, and the sizes of named axes where they are not the example's, in words."""
        return ", ".join([str(self.batch_size), *(f"{name} {size}" for name, size in self.axes.items())])

    @property
    def relative(self) -> float:
        """Returns the difference divided by the scale; 0 without a difference, infinity where the scale alone is 0."""
        if self.difference == 0.0:
            return 0.0
        return self.difference / self.scale if self.scale > 0.0 else math.inf


class ExportedLatency(Data):
    """Holds the seconds per call on the CPU of the file, and of the model in PyTorch (eager), timed in turns."""

    batch_size: int
    threads: int
    samples_s: Samples
    eager_samples_s: Samples

    @property
    def median_s(self) -> float:
        """Returns the median seconds per call of the file."""
        return statistics.median(self.samples_s)

    @property
    def eager_median_s(self) -> float:
        """Returns the median seconds per call of the model in PyTorch."""
        return statistics.median(self.eager_samples_s)

    @property
    def ratio(self) -> float:
        """Returns the median of the ratios of samples taken in turns; below 1 the file is faster than PyTorch."""
        return statistics.median(paired_ratios(self.samples_s, self.eager_samples_s))


class ExportedFile(Data):
    """Describes one file by its name, its size in bytes and its hash; a file in a folder is `FOLDER/NAME`."""

    name: str
    bytes: int
    sha256: str


class ExportReport(Data):
    """Describes an exported model and how it was checked.

    files: the exported file, then the file of its weights where ONNX must keep them apart (from 2 GB on).
    opset: the ONNX opset; None for other formats.
    batch_size: the fixed batch size; None where the file takes any.
    fixed_because: why the batch size is fixed, where the settings did not ask for that.
    parity: the difference of every output at every batch size, and at another size of the named axes.
    against_dense: the latency of the file; its dense model is the unmodified one in a file of the same format.
    weights_sha256: the hash of the saved model's weights, if the caller gave it.
    """

    version: Literal[1] = 1
    settings: ExportSettings
    files: tuple[ExportedFile, ...]
    opset: int | None
    batch_size: int | None
    fixed_because: str | None = None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    parity: tuple[Parity, ...]
    latency: tuple[ExportedLatency, ...] = ()
    against_dense: tuple[Latency, ...] = ()
    weights_sha256: str | None
    environment: Environment

    @property
    def worst(self) -> Parity:
        """Returns the output with the largest difference in relation to its scale."""
        return max(self.parity, key=lambda parity: parity.relative)
