"""Differences of two models on the same images, with an interval. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True)
class PairedDifference:
    """A mean over images, and its 95 % bootstrap interval over the images."""

    mean: float
    low: float
    high: float


def paired_difference(values: NDArray[np.float64]) -> PairedDifference:
    """Of one value per image: how much more often one model is right than the other, 1, 0 or -1, or a mean of these.

    Drawing images with replacement is drawing how often each distinct value comes.
    """
    distinct, counts = np.unique(values, return_counts=True)
    total = len(values)
    drawn = np.random.default_rng(0).multinomial(total, counts / total, RESAMPLES) @ distinct / total
    low, high = np.percentile(drawn, [2.5, 97.5])
    return PairedDifference(float(values.mean()), float(low), float(high))
