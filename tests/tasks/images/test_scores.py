"""The metrics of pictures agree with those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, top_k_accuracy_score

from tests.helpers.pictures import settings
from toolkit.tasks.images.scores import macro_f1
from toolkit.tasks.images.settings import TOP_5
from toolkit.tasks.images.task import ImageTask

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_classes", [2, 4, 30])
def test_macro_f1(num_classes: int) -> None:
    truth, guesses = RNG.integers(0, num_classes, (2, 60))
    guesses[::2] = truth[::2]
    truth[guesses == num_classes - 1] = 0  # a class without a hit
    value, (low, high) = macro_f1(truth, guesses, num_classes + 1)  # a class that does not occur
    assert value == pytest.approx(f1_score(truth, guesses, average="macro"))
    assert 0 <= low <= value <= high <= 1 and low < high


def test_top_5() -> None:
    logits, labels = torch.randn(40, 9, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 9
    task = object.__new__(ImageTask)
    task.settings, task.metric = settings(metric=TOP_5), TOP_5
    hits = task.correct(logits, labels)
    assert hits.double().mean().item() == pytest.approx(
        top_k_accuracy_score(labels.numpy(), logits.numpy(), k=5, labels=range(9))
    )
