"""The ready task for classifiers: its splits, its figures, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from toolkit import ClassificationTask
from toolkit.base.errors import StageError, UserError
from toolkit.tasks.task import AlignmentOptions, Batch

NUM_TRAIN = 20


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.drop(x))


class Pairs(Dataset[Any]):
    """Items of Python numbers and tensors; the first feature is the example's number."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return torch.tensor([float(self.first + place), 1.0]), (self.first + place) % 3


def as_tensors(first: int, count: int) -> tuple[Tensor, Tensor]:
    numbers = torch.arange(first, first + count)
    return torch.stack([numbers.float(), torch.ones(count)], 1), numbers % 3


def make(**changed: Any) -> ClassificationTask:
    settings = {"train": as_tensors(0, NUM_TRAIN), "validation": as_tensors(100, 7), "test": as_tensors(200, 9)}
    return ClassificationTask(Net, **{"trained": Net(), **settings, **changed})


def numbers(batches: list[Batch]) -> list[int]:
    return [int(value) for batch in batches for value in batch.inputs[0][:, 0]]


def test_fixed_splits_are_disjoint_parts_of_the_training_data() -> None:
    task = make(seed=3)
    found = {split: numbers(list(task.batches(split, 4))) for split in ("score", "calibration", "holdout")}  # type: ignore[arg-type]
    assert {split: len(own) for split, own in found.items()} == {"score": 6, "calibration": 6, "holdout": 6}
    drawn = [number for own in found.values() for number in own]
    assert len(set(drawn)) == 18 and set(drawn) <= set(range(NUM_TRAIN))
    again, other = make(seed=3), make(seed=4)
    assert numbers(list(again.batches("score", 4))) == found["score"]
    assert numbers(list(other.batches("score", 4))) != found["score"]
    assert numbers(list(task.batches("validation", 4))) == list(range(100, 107))
    assert numbers(list(task.batches("test", 4))) == list(range(200, 209))


def test_a_limit_is_a_beginning() -> None:
    task = make()
    whole = numbers(list(task.batches("score", 2)))
    assert numbers(list(task.batches("score", 2, limit=3))) == whole[:3]
    assert task.num_examples("score") == len(whole) == 6
    assert task.evaluate(Net(), "score", limit=3).num_examples == 3


def test_datasets_and_tensors_are_the_same() -> None:
    weights = Net().state_dict()
    rows = make(trained=weights)
    items = make(trained=weights, train=Pairs(0, NUM_TRAIN), validation=Pairs(100, 7), test=Pairs(200, 9))
    for one, other in zip(rows.batches("score", 4), items.batches("score", 4), strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0]) and torch.equal(one.targets, other.targets)
    assert rows.evaluate(rows.load_baseline(), "test") == items.evaluate(items.load_baseline(), "test")


def test_training_batches() -> None:
    task = make()
    batches, same = task.train_batches(6, 1), task.train_batches(6, 1)
    first = [next(batches) for _ in range(9)]
    assert all(len(batch.targets) == 6 for batch in first)
    assert numbers(first) == numbers([next(same) for _ in range(9)])
    for epoch in range(3):
        assert len(set(numbers(first[3 * epoch : 3 * epoch + 3]))) == 18
    few = task.train_batches(6, 1, 0.25)
    seen = [numbers([next(few)]) for _ in range(4)]
    assert all(sorted(own) == sorted(seen[0]) and len(own) == 5 for own in seen)


def test_augmented_examples_are_for_training_alone() -> None:
    task = make(augmented=as_tensors(1000, NUM_TRAIN))
    assert min(numbers([next(task.train_batches(6, 0))])) >= 1000
    assert max(numbers(list(task.batches("score", 4)))) < NUM_TRAIN


def test_example_inputs_repeat_what_there_is() -> None:
    task = make(fixed_examples=2)
    (inputs,) = task.example_inputs(5)
    assert torch.equal(inputs, task.example_inputs(5)[0])
    assert torch.equal(inputs[:2], inputs[2:4]) and inputs.shape == (5, 2)


def test_accuracy_in_eval_mode_with_its_interval() -> None:
    task, model = make(), Net()
    with torch.no_grad():
        model.layer.weight.zero_()
        model.layer.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    quality = task.evaluate(model.train(), "test")
    assert model.training and model.drop.training
    assert (quality.value, quality.num_examples) == (3 / 9, 9)
    assert quality.interval is not None and quality.interval[0] < 3 / 9 < quality.interval[1]


def test_outputs_that_are_not_numbers_are_no_figure() -> None:
    task, model = make(), Net()
    with torch.no_grad():
        model.layer.bias[0] = float("nan")
    with pytest.raises(StageError, match="split test are not finite"):
        task.evaluate(model, "test")


@pytest.mark.parametrize("form", ["bernoulli", "softmax"])
def test_alignment_is_zero_for_equals_only(form: Any) -> None:
    task, logits = make(), torch.randn(4, 3)
    options = AlignmentOptions(class_loss=form)
    assert task.alignment(logits, logits, None, options)["class"].item() == pytest.approx(0.0, abs=1e-6)
    assert task.alignment(logits, logits.flip(0), None, options)["class"].item() > 0.01


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(Pairs(0, NUM_TRAIN))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test": (torch.zeros(3, 2),)}, "test must be inputs and labels"),
        ({"train": (torch.zeros(3, 2), torch.zeros(2))}, "train must be inputs and labels of one length"),
        ({"train": Stream()}, "train has no length"),
        ({"validation": as_tensors(0, 0)}, "validation is empty"),
        ({"fixed_examples": 7}, "choose 1 to 6"),
        ({"train": as_tensors(0, 2)}, "fixed_examples is 0"),
        ({"augmented": as_tensors(0, 3)}, "augmented has 3 examples, train 20"),
        ({"trained": nn.Linear(2, 3)}, "do not fit what build_model builds"),
    ],
)
def test_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**changed)


def test_one_data_set_in_two_roles_is_refused() -> None:
    data = as_tensors(0, NUM_TRAIN)
    with pytest.raises(UserError, match="must be different data"):
        make(train=data, test=data)


def test_outputs_that_are_no_logits() -> None:
    with pytest.raises(UserError, match=r"logits \[batch, classes\]"):
        make().loss((torch.zeros(2, 3),), torch.zeros(2).long())
