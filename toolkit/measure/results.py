"""What is measured of a model, as data: multiply-adds, latency, quality. Nothing here imports torch.

Raw samples are stored; medians and ratios are computed on reading.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from operator import truediv
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, model_validator

from toolkit.base.settings import Data

Samples = Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)]


class Macs(Data):
    """Multiply-adds of one example. fvcore calls them "flops"; a floating-point operation count would be twice this.

    unknown: operators that may be heavy and have no count, with their number of calls. Where there is one, the count
        is partial: `total` is what is known, and no ratio can be made of it.
    """

    total: Annotated[int, Field(ge=0)]  # matrix products, convolutions, scaled dot-product attention
    normalisation: int  # kept apart: fvcore counts these per element, not as multiply-adds
    by_operator: dict[str, int]
    uncounted: dict[str, int]  # operator -> number of calls that carry no count
    unknown: dict[str, int] = Field(default_factory=dict)

    @property
    def is_partial(self) -> bool:
        return bool(self.unknown)

    @property
    def why_partial(self) -> str:
        """Returns what has no count, in words, with three operators at the most."""
        names = [f"{name} ({number} calls)" for name, number in self.unknown.items()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{', '.join(names[:3])}{more} may be heavy and have no count"

    def ratio_to(self, dense: Macs) -> float | None:
        """Returns the share of another model's multiply-adds; None where a count is partial or the other's is 0."""
        return None if self.is_partial or dense.is_partial or not dense.total else self.total / dense.total


EAGER: Final = "eager"  # PyTorch, operator by operator

FLOAT32: Final = "float32"

Precision = Literal["float32", "tf32", "bfloat16"]

MeasuredRuntime = Literal["eager", "compile", "cuda_graph"]  # what recipes may ask for

Runtime = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")]

Device = Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")]

BatchSize = Annotated[int, Field(ge=1)]

_KEY_TEXT = re.compile(
    r"((?P<runtime>[a-z][a-z0-9]*(_[a-z0-9]+)*?)_)?"
    r"(?P<device>[a-z]+(_[0-9]+)?)"
    rf"(_(?P<precision>{'|'.join(get_args(Precision))}))?"
    r"_batch(?P<batch_size>[1-9][0-9]*)"
)


class MeasurementKey(Data):
    """What a latency is of. Latencies are looked up by this key, never by their place in a list.

    runtime: what runs the model.
    precision: what products of matrices and convolutions are computed in.
    batch_size: examples per call.
    """

    runtime: Runtime = EAGER
    device: Device
    precision: Precision = FLOAT32
    batch_size: BatchSize

    @property
    def where(self) -> str:
        """Returns all but the batch size in words; the runtime is named unless eager, the precision unless float32."""
        runtime = [] if self.runtime == EAGER else [self.runtime]
        precision = [] if self.precision == FLOAT32 else [self.precision]
        return " ".join([*runtime, self.device, *precision])

    @property
    def words(self) -> str:
        """Returns the key in words, such as `cpu batch 16` or `compile cuda bfloat16 batch 16`."""
        return f"{self.where} batch {self.batch_size}"

    @property
    def text(self) -> str:
        """Returns the key as a part of names of tables, columns and files, such as `cpu_batch16`; `parse` reads it."""
        return f"{self.where}_batch{self.batch_size}".replace(" ", "_").replace(":", "_")

    @classmethod
    def parse(cls, text: str) -> MeasurementKey:
        """Returns the key of this `text`.

        Raises:
            ValueError: no key has this text.
        """
        if match := _KEY_TEXT.fullmatch(text):
            given = {name: value for name, value in match.groupdict().items() if value}
            key = cls.model_validate(given | {"device": given["device"].replace("_", ":")})
            if key.text == text:
                return key
        raise ValueError(f"{text!r} does not say what a latency is of; such a name is cpu_batch16")


class Latency(Data):
    """Seconds per forward call. The dense model is timed in turns with this one, so `ratio` is of the same moment.

    Records of earlier versions do not name the runtime and the precision: all their latencies are eager, float32.
    `dtype` is the type of the parameters. The peaks are the most memory that a call takes, in bytes, the weights
    included, of either model (see `peak_memory`); None where they were not counted, as on the CPU.
    """

    runtime: Runtime = EAGER
    device: Device
    precision: Precision = FLOAT32
    batch_size: BatchSize
    threads: int
    dtype: str
    samples_s: Samples
    dense_samples_s: Samples
    peak_bytes: Annotated[int, Field(ge=0)] | None = None
    dense_peak_bytes: Annotated[int, Field(ge=1)] | None = None

    @property
    def key(self) -> MeasurementKey:
        return MeasurementKey(
            runtime=self.runtime, device=self.device, precision=self.precision, batch_size=self.batch_size
        )

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

    @property
    def peak_ratio(self) -> float | None:
        """Returns the peak of the memory as a share of the dense model's; None where they were not counted."""
        if self.peak_bytes is None or self.dense_peak_bytes is None:
            return None
        return self.peak_bytes / self.dense_peak_bytes

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


class Quality(Data):
    metric: str
    split: str
    value: float
    num_examples: int
    interval: tuple[float, float] | None = None  # 95 %, bootstrap over the examples
    details: dict[str, float] = Field(default_factory=dict)  # e.g. {"mAP@0.5": 0.71}


class Segment(Data):
    """A labelled stretch of time, in seconds; `score` is 1 for ground truth."""

    start_s: float
    end_s: float
    label: str
    score: float = 1.0


class Timeline(Data):
    """One test stream with its true and predicted segments."""

    stream: str
    duration_s: float
    truth: tuple[Segment, ...]
    predicted: tuple[Segment, ...]


class Measurement(Data):
    """What was measured of one model. No two latencies have the same key."""

    macs: Macs
    num_params: Annotated[int, Field(ge=1)]
    latency: tuple[Latency, ...]
    quality: tuple[Quality, ...]
    timeline: Timeline | None = None

    @model_validator(mode="after")
    def _one_latency_for_each_key(self) -> Measurement:
        if twice := [key.words for index, key in enumerate(self.latency_keys) if key in self.latency_keys[:index]]:
            raise ValueError(f"it has two latencies of {twice[0]}")
        return self

    @property
    def latency_keys(self) -> tuple[MeasurementKey, ...]:
        return tuple(latency.key for latency in self.latency)

    def latency_at(self, key: MeasurementKey) -> Latency | None:
        return next((latency for latency in self.latency if latency.key == key), None)

    def quality_on(self, split: str) -> Quality | None:
        return next((quality for quality in self.quality if quality.split == split), None)


class Environment(Data):
    python: str
    platform: str
    processor: str
    num_cores: int
    gpu: str | None
    threads: int | None = None  # that torch computes with; sums depend on it in their last digits
    packages: dict[str, str]
