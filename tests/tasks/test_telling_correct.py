"""What a classifier tells of one example: whether it is right, for every form of its outputs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from toolkit import ClassificationTask
from toolkit.base.errors import UserError
from toolkit.tasks.task import HasStrata, TellsCorrect


def make(classes: int) -> ClassificationTask:
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(12, 3, generator=generator), torch.arange(12) % 2) for _ in range(3)]
    model = nn.Linear(3, classes)
    return ClassificationTask(
        lambda: nn.Linear(3, classes), model, train=data[0], validation=data[1], test=data[2], name="mine"
    )


def test_the_largest_logit_is_the_answer() -> None:
    task, logits = make(3), torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    targets = torch.tensor([1, 1, 2])
    assert task.correct(logits, targets).tolist() == [True, False, True]
    assert task.correct(SimpleNamespace(logits=logits), targets).tolist() == [True, False, True]
    assert task.correct({"logits": logits}, targets).dtype == torch.bool
    with pytest.raises(UserError, match="output must be logits"):
        task.correct((logits, logits), targets)


def test_one_logit_tells_class_1_from_class_0() -> None:
    task, targets = make(1), torch.tensor([1, 0, 1])
    assert task.correct(torch.tensor([[0.5], [0.5], [-0.5]]), targets).tolist() == [True, False, False]
    assert task.correct(torch.tensor([0.5, 0.5, -0.5]), targets).tolist() == [True, False, False]


def test_it_is_what_the_accuracy_counts() -> None:
    task = make(2)
    model = task.load_baseline()
    (batch,) = task.batches("test", 12)
    right = task.correct(model(*batch.inputs), batch.targets)
    assert torch.equal(right, task.hits(model, "test"))
    assert task.evaluate(model, "test").value == pytest.approx(float(right.double().mean()))
    assert isinstance(task, TellsCorrect) and not isinstance(task, HasStrata)
