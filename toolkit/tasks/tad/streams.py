"""Holds untrimmed streams with labelled segments, and the protocol of what gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from toolkit.tasks.tad.augment import Signal
from toolkit.tasks.task import Split


class StreamSource(Protocol):
    """Gives the streams of a data set."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, in the order of their indices."""

    @property
    def sample_rate_hz(self) -> int:
        """Returns the number of samples per second."""

    @property
    def mean(self) -> Tensor:
        """Returns the mean of each channel over the training subjects: [channels, 1]."""

    @property
    def deviation(self) -> Tensor:
        """Returns the standard deviation of each channel over the training subjects: [channels, 1]."""

    def fixed(self, split: Split) -> tuple[Stream, ...]:
        """Returns the streams of a split, the same on every call."""

    def train(self, duration_s: float, rng: np.random.Generator) -> Stream:
        """Returns a new random training stream of at most `duration_s` seconds."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Holds an untrimmed stream.

    signal: [samples, channels].
    segments: [N, 2], start and end in seconds.
    labels: [N], indices of classes.
    joints_s: where recordings are spliced, in seconds; empty for a real stream.
    """

    name: str
    signal: Signal
    segments: NDArray[np.float64]
    labels: NDArray[np.int64]
    joints_s: NDArray[np.float64]
