"""Holds what is measured of a model as data: latency, quality, and all of it together. Nothing here imports torch.

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
from toolkit.measure.counted import Macs, percentile

Samples = Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)]


EAGER: Final = "eager"  # plain PyTorch, operator by operator
FLOAT32: Final = "float32"

Precision = Literal["float32", "tf32", "bfloat16"]
MeasuredRuntime = Literal["eager", "compile", "cuda_graph"]  # the runtimes that recipes may ask for

Runtime = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")]
Device = Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")]
BatchSize = Annotated[int, Field(ge=1)]

_KEY_TEXT = re.compile(
    r"((?P<runtime>[a-z][a-z0-9]*(_[a-z0-9]+)*?)_)?(?P<device>[a-z]+(_[0-9]+)?)"
    rf"(_(?P<precision>{'|'.join(get_args(Precision))}))?_batch(?P<batch_size>[1-9][0-9]*)"
)


class MeasurementKey(Data):
    """Says what a latency is of; latencies are looked up by this key, never by their position in a list."""

    runtime: Runtime = EAGER  # what runs the model
    device: Device
    precision: Precision = FLOAT32  # the number type of matrix products and convolutions
    batch_size: BatchSize  # examples per call

    @property
    def where(self) -> str:
        """Returns runtime, device and precision in words; `eager` and `float32` are left out."""
        runtime = [] if self.runtime == EAGER else [self.runtime]
        precision = [] if self.precision == FLOAT32 else [self.precision]
        return " ".join([*runtime, self.device, *precision])

    @property
    def words(self) -> str:
        """Returns the key in words, such as `cpu batch 16` or `compile cuda bfloat16 batch 16`."""
        return f"{self.where} batch {self.batch_size}"

    @property
    def text(self) -> str:
        """Returns the key as it stands in names of columns and files, such as `cpu_batch16`; `parse` reads it back."""
        return f"{self.where}_batch{self.batch_size}".replace(" ", "_").replace(":", "_")

    @classmethod
    def parse(cls, text: str) -> MeasurementKey:
        """Returns the key whose `text` this is; raises ValueError if no key has this text."""
        if match := _KEY_TEXT.fullmatch(text):
            given = {name: value for name, value in match.groupdict().items() if value}
            key = cls.model_validate(given | {"device": given["device"].replace("_", ":")})
            if key.text == text:
                return key
        raise ValueError(f"{text!r} is not the name of a latency; such a name is cpu_batch16")


class Latency(Data):
    """Holds the seconds per forward call of a model and of the dense model, which were timed in turns.

    Records of earlier versions name neither runtime nor precision: all their latencies are eager and float32. The peaks
    are the most memory that a call takes, weights included (see `peak_memory`); None where it was not measured.
    """

    runtime: Runtime = EAGER
    device: Device
    precision: Precision = FLOAT32
    batch_size: BatchSize
    threads: int
    dtype: str  # of the parameters
    samples_s: Samples
    dense_samples_s: Samples
    peak_bytes: Annotated[int, Field(ge=0)] | None = None
    dense_peak_bytes: Annotated[int, Field(ge=1)] | None = None

    @property
    def key(self) -> MeasurementKey:
        """Returns the key that says what this latency is of."""
        return MeasurementKey(
            runtime=self.runtime, device=self.device, precision=self.precision, batch_size=self.batch_size
        )

    @property
    def median_s(self) -> float:
        """Returns the median of the model's samples, in seconds."""
        return statistics.median(self.samples_s)

    @property
    def dense_median_s(self) -> float:
        """Returns the median of the dense model's samples, in seconds."""
        return statistics.median(self.dense_samples_s)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Returns the ratio of each sample to the dense sample of its pair; below 1 is faster than dense."""
        return paired_ratios(self.samples_s, self.dense_samples_s)

    @property
    def ratio(self) -> float:
        """Returns the median of `ratios`, which varies less than a ratio of medians if the machine's speed varies."""
        return statistics.median(self.ratios)

    @property
    def peak_ratio(self) -> float | None:
        """Returns the peak memory as a share of the dense model's; None if it was not measured."""
        if self.peak_bytes is None or self.dense_peak_bytes is None:
            return None
        return self.peak_bytes / self.dense_peak_bytes

    def percentile_s(self, percent: int) -> float:
        """Returns a percentile of the model's samples in seconds; `percent` is from 1 to 99."""
        return percentile(self.samples_s, percent)

    @model_validator(mode="after")
    def _in_pairs(self) -> Latency:
        paired_ratios(self.samples_s, self.dense_samples_s)
        return self


def paired_ratios(samples_s: Sequence[float], others_s: Sequence[float]) -> tuple[float, ...]:
    """Returns the ratios of paired samples of two models; raises ValueError if one has more samples."""
    if len(samples_s) != len(others_s):
        raise ValueError(f"it has {len(samples_s)} samples of one model and {len(others_s)} of the other")
    return tuple(map(truediv, samples_s, others_s))


class Quality(Data):
    """Holds the value of a metric on a split of the data; a higher value is better."""

    metric: str
    split: str
    value: float
    num_examples: int
    interval: tuple[float, float] | None = None  # 95 %, bootstrap over the examples
    details: dict[str, float] = Field(default_factory=dict)  # such as {"mAP@0.5": 0.71}


class Segment(Data):
    """Holds a labelled stretch of time, in seconds; `score` is 1 for ground truth."""

    start_s: float
    end_s: float
    label: str
    score: float = 1.0


class Timeline(Data):
    """Holds one test stream of `duration_s` seconds with its true and its predicted segments."""

    stream: str
    duration_s: float
    truth: tuple[Segment, ...]
    predicted: tuple[Segment, ...]


class Measurement(Data):
    """Holds what was measured of one model; no two latencies have the same key."""

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
        """Returns the keys of all latencies, in their order."""
        return tuple(latency.key for latency in self.latency)

    def latency_at(self, key: MeasurementKey) -> Latency | None:
        """Returns the latency with this key; None if there is none."""
        return next((latency for latency in self.latency if latency.key == key), None)

    def quality_on(self, split: str) -> Quality | None:
        """Returns the quality on this split; None if it was not measured."""
        return next((quality for quality in self.quality if quality.split == split), None)


class Environment(Data):
    """Describes the machine and the versions of the software that numbers were measured with."""

    python: str
    platform: str
    processor: str
    num_cores: int
    gpu: str | None
    threads: int | None = None  # CPU threads of torch; sums depend on them in their last digits
    packages: dict[str, str]
