"""Computes the difference of two models on the same images, with an interval. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True)
class PairedDifference:
    """Holds a mean over images, and its 95 % bootstrap interval over the images."""

    mean: float
    low: float
    high: float


def paired_difference(values: NDArray[np.float64]) -> PairedDifference:
    """Returns the mean of one value per image, with its interval.

    The bootstrap draws how often each distinct value occurs, which is the same as drawing images with replacement.

    values: for each image 1, 0 or -1 (only the first model is right, both or none are, only the second is), or a mean
        of such numbers: [num_images].
    """
    distinct, counts = np.unique(values, return_counts=True)
    total = len(values)
    drawn = np.random.default_rng(0).multinomial(total, counts / total, RESAMPLES) @ distinct / total
    low, high = np.percentile(drawn, [2.5, 97.5])
    return PairedDifference(float(values.mean()), float(low), float(high))
