"""Figures that would be of nothing: labels, logits and metrics that do not mean what the task takes them for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.helpers.tiny_task import TinyTask
from toolkit import ClassificationTask
from toolkit.base.errors import StageError, UserError
from toolkit.measure.results import Quality
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import AlignmentOptions

CLASSES = 3


class Net(nn.Module):
    """Logits [B, outputs] of signals [B, 2]; `end` is what comes behind them."""

    def __init__(self, outputs: int = CLASSES, end: Callable[[Tensor], Any] | None = None) -> None:
        super().__init__()
        self.layer, self.end = nn.Linear(2, outputs), end

    def forward(self, x: Tensor) -> Any:
        logits = self.layer(x)
        return logits if self.end is None else self.end(logits)


class Items(Dataset[Any]):
    def __init__(self, inputs: Tensor, labels: Any) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, place: int) -> tuple[Tensor, Any]:
        return self.inputs[place], self.labels[place]


def make(label: Callable[[Tensor], Any], build: Callable[[], nn.Module] = Net, *, items: bool = False) -> Any:
    """A task whose labels are `label` of 0, 1, 2, 0, 1, 2 ..."""
    generator = torch.Generator().manual_seed(0)
    data = []
    for count in (30, 12, 12):
        inputs, labels = torch.randn(count, 2, generator=generator), label(torch.arange(count) % CLASSES)
        data.append(Items(inputs, labels) if items else (inputs, labels))
    torch.manual_seed(0)
    return ClassificationTask(build, build(), train=data[0], validation=data[1], test=data[2])


LABELS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a column": (lambda y: y[:, None], r"shape \[30, 1\] and type int64, from 0 to 2; .*pass labels\.squeeze\(1\)"),
    "a column of floats": (lambda y: y[:, None].float(), r"type float32, .*pass labels\.squeeze\(1\)\.long\(\)"),
    "floats": (lambda y: y.float(), r"type float32, from 0 to 2; .*pass labels\.long\(\)"),
    "a regression": (lambda y: y / 7, "targets of a regression.*write a Task of your own"),
    "NaN": (lambda y: y.float().where(y != 1, torch.nan), "some are NaN"),
    "one-hot": (lambda y: nn.functional.one_hot(y, CLASSES), r"one-hot rows.*pass labels\.argmax\(1\)"),
    "soft labels": (lambda y: nn.functional.one_hot(y, CLASSES) * 0.7 + 0.1, r"soft labels.*labels\.argmax\(1\)"),
    "several classes": (lambda y: (torch.arange(CLASSES) <= y[:, None]).float(), "multi-label"),
    "pixels": (lambda y: y[:, None, None].expand(-1, 4, 4), "labels of pixels"),
    "from 1": (lambda y: y + 1, r"from 1 to 3; the model gives 3 logits, so that labels are 0 to 2: pass labels - 1"),
    "ignored": (lambda y: y.where(y != 1, -100), "from -100 to 2; .*leave out the examples marked -100"),
    "ignored as 255": (lambda y: y.where(y != 1, 255).to(torch.uint8), "leave out the examples marked 255"),
    "too many": (lambda y: y * 4, "from 0 to 8; .*an output for every class"),
}


@pytest.mark.parametrize("items", [False, True], ids=["tensors", "data sets"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_none(kind: str, items: bool) -> None:
    label, message = LABELS[kind]
    with pytest.raises(UserError, match=message.replace("30", "(30|8)")):
        make(label, items=items)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.bool])
@pytest.mark.parametrize("items", [False, True], ids=["tensors", "data sets"])
def test_whole_numbers_of_any_type_are_labels(kind: torch.dtype, items: bool) -> None:
    task = make(lambda y: y.clamp(max=1).to(kind), items=items)
    batch = next(task.batches("test", 4))
    assert batch.targets.dtype == torch.int64
    assert bool(task.loss(task.load_baseline()(*batch.inputs), batch.targets).isfinite())


def test_a_label_that_only_a_later_item_has_is_found_when_it_is_read() -> None:
    task = make(lambda y: [*y.tolist()[:6], 9, *y.tolist()[7:]], items=True)
    with pytest.raises(UserError, match=r"labels of test .* from 0 to 9"):
        task.evaluate(task.load_baseline(), "test")


@pytest.mark.parametrize("words", [["a", "b", "c"], [None] * 3], ids=["names", "None"])
def test_labels_that_are_no_numbers(words: list[Any]) -> None:
    with pytest.raises(UserError, match=r"(labels of train are a tuple)|(cannot be made a batch)"):
        make(lambda y: [words[int(one)] for one in y], items=True)


@pytest.mark.parametrize("end", [None, lambda z: z[:, 0], lambda z: {"logits": z}], ids=["[B, 1]", "[B]", "a dict"])
def test_one_logit_tells_two_classes_apart(end: Callable[[Tensor], Any] | None) -> None:
    task = make(lambda y: y.clamp(max=1), lambda: Net(1, end))
    model = task.load_baseline()
    nn.init.constant_(model.layer.bias, 0.5)
    hits = []
    for batch in task.batches("test", 5):
        logits = model.layer(batch.inputs[0])[:, 0]
        hits.append((logits > 0) == (batch.targets == 1))
        assert bool((logits > 0).any())
        probability = logits.sigmoid()
        by_hand = -torch.where(batch.targets == 1, probability, 1 - probability).log().mean()
        assert task.loss(model(*batch.inputs), batch.targets).item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert task.evaluate(model, "test").value == pytest.approx(torch.cat(hits).double().mean().item())
    far = task.alignment(torch.ones(4, 1), -torch.ones(4, 1), None, AlignmentOptions(class_loss="softmax"))
    assert far["class"].item() > 0.1


@pytest.mark.parametrize(
    ("label", "build", "message"),
    [
        (lambda y: y, lambda: Net(1), "one logit, which tells two classes apart, .*0 to 1"),
        (lambda y: 2 * y.clamp(max=1) - 1, lambda: Net(1), r"from -1 to 1; .*pass \(labels > 0\)\.long\(\)"),
        (lambda y: y.clamp(max=1), lambda: Net(1, torch.sigmoid), "as after a sigmoid"),
        (lambda y: y, lambda: Net(end=lambda z: z.softmax(-1)), "as after a softmax"),
        (lambda y: y, lambda: Net(end=lambda z: z * torch.nan), "are not finite numbers"),
        (lambda y: y, lambda: Net(end=lambda z: z[..., None, None]), r"shape \[1, 3, 1, 1\]|shape \[10, 3, 1, 1\]"),
        (lambda y: y, lambda: Net(end=lambda z: z.argmax(-1)), "type int64"),
        (lambda y: y, lambda: Net(end=lambda z: z.mean(0, keepdim=True)), r"shape \[1, 3\] .* for 10 examples"),
    ],
    ids=["three classes", "-1 and 1", "sigmoid", "softmax", "NaN", "maps", "classes", "one row"],
)
def test_outputs_that_are_no_logits(
    label: Callable[[Tensor], Tensor], build: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(label, build)


def quality(**changed: Any) -> Quality:
    return Quality(**{"metric": "accuracy", "split": "test", "value": 0.5, "num_examples": 96, **changed})


ANSWERS: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: quality(value=float("nan")), "value is nan"),
    "infinite": (lambda: quality(value=float("inf")), "value is inf"),
    "several values": (lambda: quality(value=torch.ones(2)), "value is tensor"),
    "a number": (lambda: 0.5, "evaluate gives a float; it must return"),
    "a tensor": (lambda: torch.tensor(0.5), r"evaluate gives a tensor of shape \[\]"),
    "None": (lambda: None, "evaluate gives None"),
    "percent": (lambda: quality(value=87.5), "accuracy is 87.5; it is a share, from 0 to 1"),
    "outside of its interval": (lambda: quality(interval=(0.6, 0.7)), "0.5 is outside of its own interval"),
    "another split": (lambda: quality(split="validation"), "it is 'accuracy' on 'validation'"),
    "another metric": (lambda: quality(metric="loss"), "it is 'loss' on 'test'"),
    "of nothing": (lambda: quality(num_examples=0), "its num_examples is 0; the split has 1 to 96"),
    "of too many": (lambda: quality(num_examples=97), "its num_examples is 97; the split has 1 to 96"),
    "an error": (lambda: {}["top1"], r"evaluate of task 'tiny' fails on 'test': KeyError: 'top1' \(in <lambda>"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_metrics_that_are_none(kind: str, tiny_task: TinyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, message = ANSWERS[kind]
    monkeypatch.setattr(tiny_task, "evaluate", lambda *_, **__: answer())
    with pytest.raises(StageError, match=message):
        evaluate(tiny_task, tiny_task.load_baseline(), "test")


def test_a_metric_of_another_range_passes(tiny_task: TinyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_task, "metric", "negative perplexity")
    found = quality(metric="negative perplexity", value=-31.5, interval=(-33.0, -30.0))
    monkeypatch.setattr(tiny_task, "evaluate", lambda *_, **__: found)
    assert evaluate(tiny_task, tiny_task.load_baseline(), "test") == found
