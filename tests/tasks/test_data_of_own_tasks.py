"""Data of a user's own: splits that share examples, items that are none, and models that do not take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from toolkit import ClassificationTask
from toolkit.base.errors import UserError

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


class Items(Dataset[Any]):
    """Whatever `item` gives for numbers from `first` on."""

    def __init__(self, item: Callable[[int], Any], first: int = 0, count: int = 20) -> None:
        self.item, self.first, self.count = item, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Any:
        return self.item(self.first + place)


class Files(Items):
    """As image folders are: a list of files, one for each item."""

    def __init__(self, scale: float) -> None:
        super().__init__(lambda n: (scale * X[n], Y[n]), count=60)
        self.samples = [(f"{n}.png", int(Y[n])) for n in range(60)]


def rows(first: int, end: int) -> tuple[Tensor, Tensor]:
    return X[first:end], Y[first:end]


def make(train: Any = None, validation: Any = None, test: Any = None, **more: Any) -> ClassificationTask:
    parts = {"train": rows(0, 30), "validation": rows(30, 45), "test": rows(45, 60)}
    given = {"train": train, "validation": validation, "test": test}
    parts |= {name: part for name, part in given.items() if part is not None}
    build = more.pop("build", lambda: nn.Linear(2, 3))
    return ClassificationTask(build, build(), **parts, **more)


ALL = TensorDataset(X, Y)
NUMBERED = Items(lambda n: (X[n], Y[n]), count=60)

SHARED: dict[str, tuple[dict[str, Any], str]] = {
    "the same rows": ({"test": rows(20, 35)}, "train and test share 10 of the 15 examples of test"),
    "one row": ({"validation": (X[29:44].clone(), Y[29:44])}, r"train and validation share 1 .* \(numbers 0 of valid"),
    "the same rows in another order": ({"test": (X[:30].flip(0)[:9], Y[:9])}, "train and test share 9"),
    "with other labels": ({"test": (X[:9], Y[:9].roll(1))}, "train and test share 9"),
    "augmented examples": ({"augmented": rows(20, 50)}, "augmented and validation share 15"),
    "validation and test": ({"test": rows(40, 55)}, "validation and test share 5"),
    "subsets of one data set": (
        {"train": Subset(NUMBERED, range(30)), "test": Subset(NUMBERED, range(25, 40))},
        "train and test share 5",
    ),
    "a subset of a subset": (
        {"train": Subset(Subset(NUMBERED, range(10, 60)), range(20)), "test": Subset(NUMBERED, range(29, 33))},
        "train and test share 1 ",
    ),
    "the whole and a part": ({"train": NUMBERED, "test": Subset(NUMBERED, range(12))}, "train and test share 12"),
    "a concatenation": (
        {"train": ConcatDataset([Subset(ALL, range(20)), Subset(ALL, range(50, 60))])},
        "train and test share 10",
    ),
    "tensors and a data set of them": ({"test": Subset(ALL, range(28, 32))}, "share 2"),
    "the same files, differently augmented": (
        {
            "train": Subset(Files(1.0), range(30)),
            "validation": Subset(Files(1.0), range(30, 40)),
            "test": Subset(Files(0.5), range(20, 60, 2)),
        },
        "train and test share 5",
    ),
}


@pytest.mark.parametrize("kind", SHARED)
def test_splits_that_share_examples(kind: str) -> None:
    changed, message = SHARED[kind]
    with pytest.raises(UserError, match=message):
        make(**changed)


def test_splits_that_share_none_pass() -> None:
    numbered = Subset(NUMBERED, range(30)), Subset(NUMBERED, range(30, 40))
    assert make(*numbered, Subset(ALL, range(40, 60))).num_examples("test") == 20
    folder = Files(1.0)
    made = make(
        train=Subset(folder, range(30)),
        validation=Subset(Files(0.5), range(30, 40)),
        test=Subset(folder, range(40, 60)),
    )
    assert (made.num_examples("validation"), made.num_examples("test")) == (10, 20)


def test_examples_that_repeat_by_nature_pass() -> None:
    """A few switches: most rows are in every split, and in each of them several times."""
    bits = torch.randint(2, (600, 5), generator=torch.Generator().manual_seed(1)).float()
    parts = [(part, part.sum(1).long() % 3) for part in bits.split([300, 150, 150])]
    made = make(*parts, build=lambda: nn.Linear(5, 3))
    assert (made.num_examples("validation"), made.num_examples("test")) == (150, 150)


class Named(NamedTuple):
    signal: Tensor
    label: Tensor


def failing(number: int) -> Any:
    if number == 3:
        raise OSError("image file is truncated")
    return X[number], Y[number]


ITEMS: dict[str, tuple[Callable[[int], Any], str]] = {
    "dictionaries": (lambda n: {"x": X[n], "y": Y[n]}, "item 0 of train is a dict with the keys x, y; an item must be"),
    "no label": (lambda n: X[n], r"item 0 of train is a tensor of shape \[2\] .*: its label is missing"),
    "one part": (lambda n: (X[n],), "its label is missing"),
    "None": (lambda n: None, "item 0 of train is None; an item must be"),
    "texts": (lambda n: ("a text", Y[n]), "part 0 of the items of train is a str"),
    "objects": (lambda n: (object(), Y[n]), r"cannot be made a batch of .*item 0 is an object"),
    "lengths": (lambda n: (torch.zeros(2 + n % 2), Y[n]), r"items 0 and 1 of train .* shape \[2\] .* shape \[3\]"),
    "numbers of parts": (lambda n: (X[n], *[Y[n]] * (1 + n % 2)), "they have 2 and 3 parts"),
    "an error": (failing, r"item 3 of train cannot be read: OSError: image file is truncated \(in failing, test_data"),
    "random items": (lambda n: (X[n] + torch.randn(2), Y[n]), "not the same when they are read again"),
}


@pytest.mark.parametrize("kind", ITEMS)
def test_items_that_are_none(kind: str) -> None:
    item, message = ITEMS[kind]
    with pytest.raises(UserError, match=message):
        make(train=Items(item))


def test_items_of_other_forms_pass() -> None:
    for item in (lambda n: [X[n], int(Y[n])], lambda n: Named(X[n], Y[n]), lambda n: (X[n].numpy(), Y[n].numpy())):
        batch = next(make(train=Items(item), augmented=Items(lambda n: (X[n] * 2, Y[n]))).batches("score", 4))
        assert batch.inputs[0].shape == (4, 2) and batch.targets.shape == (4,)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (X, "train is a tensor of shape"),
        ("data/train", "train is a str; give tensors"),
        ({"x": X, "y": Y}, "train is a dict with the keys x, y"),
        ((X.numpy(), Y.numpy()), "it holds a ndarray"),
        (None, None),
    ],
    ids=["one tensor", "a path", "a dictionary", "numpy", "fine"],
)
def test_data_of_other_kinds(train: Any, message: str | None) -> None:
    if message is None:
        make()
        return
    with pytest.raises(UserError, match=message):
        make(train=train)


class Model(nn.Module):
    """A linear layer, and `work(layer, x)` in its forward."""

    def __init__(self, work: Callable[..., Any], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.work = layer or nn.Linear(2, 3), work

    def forward(self, x: Tensor) -> Any:
        return self.work(self.layer, x)


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, *, signal: Tensor) -> Tensor:
        return self.layer(signal)


class TwoInputs(Keywords):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return self.layer(x * mask)


class NoForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "raises": (lambda: Model(lambda m, x: {}["x"]), r"run on 1 example \(\[1, 2\]\): KeyError: 'x' \(in <lambda>"),
    "other shapes": (lambda: nn.Linear(5, 3), "does not run on 1 example .*shapes cannot be multiplied"),
    "None": (lambda: Model(lambda m, x: None), "the model returns None, in which there is no tensor"),
    "a text": (lambda: Model(lambda m, x: "cat"), "the model returns a str, in which"),
    "a tuple of no tensors": (lambda: Model(lambda m, x: (1, "a")), "the model returns a tuple of 2 parts, in which"),
    "an empty dictionary": (lambda: Model(lambda m, x: {}), "the model returns an empty dict, in which"),
    "keywords": (Keywords, "with its inputs by position"),
    "two inputs": (TwoInputs, "missing 1 required positional argument: 'mask'.* by position"),
    "no forward": (NoForward, "has no forward of its own"),
    "no module": (lambda: None, "build_model gives None; it must build"),
    "8 examples": (lambda: Model(lambda m, x: m(x).view(8, -1)), "it runs on 8 .* a number of examples seems"),
    "1 example": (lambda: Model(lambda m, x: m(x).view(1, 3)), "does not run on 2 examples .*; it runs on 1: a number"),
    "pairs": (lambda: Model(lambda m, x: m(x).view(-1, 2, 3).flatten(0, 1)), "run on 3 .*it runs on 2: a number"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_models_that_do_not_take_the_data(kind: str) -> None:
    build, message = MODELS[kind]
    with pytest.raises(UserError, match=message):
        make(build=build) if kind != "no module" else ClassificationTask(
            build, nn.Linear(2, 3), train=rows(0, 30), validation=rows(30, 45), test=rows(45, 60)
        )


def test_a_model_that_needs_two_examples_gets_two() -> None:
    """Statistics of the batch in eval mode too: torch refuses one example. 13 and 15 examples leave none alone."""
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    task = make(test=rows(45, 58), build=lambda: nn.Sequential(norm, nn.Linear(2, 3)))
    assert [len(batch.targets) for batch in task.batches("test", 4)] == [4, 4, 5]
    assert [len(batch.targets) for batch in task.batches("test", 1)] == [2, 2, 2, 2, 2, 3]
    assert [len(batch.targets) for batch in task.batches("test", 64)] == [13]
    assert task.evaluate(task.load_baseline(), "test").num_examples == 13
