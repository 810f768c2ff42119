"""Computes the macro F1 of a classification with its bootstrap interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000


def macro_f1(
    truth: NDArray[np.int64], guesses: NDArray[np.int64], num_classes: int
) -> tuple[float, tuple[float, float]]:
    """Returns the mean F1 score of the classes that occur, and its 95 % bootstrap interval, widened to hold the value.

    The F1 score of a class is 2 TP / (2 TP + FP + FN), and 0 if it is never guessed right. As in scikit-learn, classes
    that are neither true nor guessed are left out of the mean.

    truth, guesses: int64 [N], the true and the guessed class of each example.
    """
    cells, counts = np.unique(truth * num_classes + guesses, return_counts=True)
    value = _mean_f1(cells, counts, num_classes)
    # drawing examples with replacement is drawing how many of them fall into each cell of the confusion matrix
    draws = np.random.default_rng(0).multinomial(len(truth), counts / len(truth), RESAMPLES)
    low, high = np.percentile([_mean_f1(cells, drawn, num_classes) for drawn in draws], [2.5, 97.5])
    return value, (min(float(low), value), max(float(high), value))


def _mean_f1(cells: NDArray[np.int64], counts: NDArray[np.int64], num_classes: int) -> float:
    true, guessed = cells // num_classes, cells % num_classes
    num_true = np.bincount(true, counts, num_classes)
    num_guessed = np.bincount(guessed, counts, num_classes)
    num_right = np.bincount(true, counts * (true == guessed), num_classes)
    occurs = num_true + num_guessed > 0
    return float((2 * num_right[occurs] / (num_true + num_guessed)[occurs]).mean())
