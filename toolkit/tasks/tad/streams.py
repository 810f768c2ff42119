"""Untrimmed streams with labelled segments, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from toolkit.tasks.tad.augment import Signal
from toolkit.tasks.task import Split


class StreamSource(Protocol):
    """Where streams come from. `fixed` are the same on every call; `train` is spliced or cut afresh."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def mean(self) -> Tensor:
        """[channels, 1], of the training subjects."""

    @property
    def deviation(self) -> Tensor:
        """[channels, 1], of the training subjects."""

    def fixed(self, split: Split) -> tuple[Stream, ...]: ...

    def train(self, duration_s: float, rng: np.random.Generator) -> Stream: ...


@dataclass(frozen=True, eq=False)
class Stream:
    """Untrimmed: `signal` [samples, channels], `segments` [N, 2] and `joints_s` in seconds, `labels` [N] indices."""

    name: str
    signal: Signal
    segments: NDArray[np.float64]
    labels: NDArray[np.int64]
    joints_s: NDArray[np.float64]
