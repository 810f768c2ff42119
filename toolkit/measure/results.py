"""What is measured of a model, as data: multiply-adds, latency, quality. Nothing here imports torch.

Raw samples are stored; medians and ratios are computed on reading.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from operator import truediv
from typing import Annotated

from pydantic import Field, model_validator

from toolkit.base.settings import Data

Samples = Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)]


class Macs(Data):
    """Multiply-adds of one example. fvcore calls them "flops"; a floating-point operation count would be twice this."""

    total: Annotated[int, Field(ge=0)]  # matrix products, convolutions, scaled dot-product attention
    normalisation: int  # kept apart: fvcore counts these per element, not as multiply-adds
    by_operator: dict[str, int]
    uncounted: dict[str, int]  # operator -> number of calls that carry no count


class Latency(Data):
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


class Environment(Data):
    python: str
    platform: str
    processor: str
    num_cores: int
    gpu: str | None
    threads: int | None = None  # that torch computes with; sums depend on it in their last digits
    packages: dict[str, str]
