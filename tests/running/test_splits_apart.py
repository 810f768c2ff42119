"""Splits of a task of the user's own are apart, its inputs the same at every call, and its metric of eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit import Batch, BlockDrop, ClassificationTask, Measure, Recipe, preflight_of, run
from toolkit.base.console import Console
from toolkit.base.errors import StageError, UserError
from toolkit.measure.results import Quality
from toolkit.tasks.overlap import check_splits
from toolkit.tasks.task import AlignmentOptions, Split

COUNT = 60


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.norm(self.a(x))))


class Own:
    """A task without a base class, whose metric is in percent; `first` and `order` say which examples a split has."""

    name, metric, protected = "own", "percent", ()

    def __init__(self, **places: list[int]) -> None:
        generator = torch.Generator().manual_seed(0)
        total = COUNT * len(get_args(Split))
        self.x = torch.randn(total, 8, generator=generator)
        torch.manual_seed(0)
        self._model = self.build_model().eval()
        self.y = self._model(self.x).argmax(-1)
        self.places = {split: list(range(COUNT * n, COUNT * (n + 1))) for n, split in enumerate(get_args(Split))}
        self.places |= places

    def build_model(self) -> nn.Module:
        return nn.Sequential(Block(), Block(), nn.Linear(8, 4))

    def load_baseline(self) -> nn.Module:
        model = self.build_model()
        model.load_state_dict(self._model.state_dict())
        return model.eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        return (self.x[:batch_size],)

    def num_examples(self, split: Split) -> int:
        return len(self.places[split])

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        places = self.places[split][:limit]
        for start in range(0, len(places), batch_size):
            part = places[start : start + batch_size]
            yield Batch((self.x[part],), self.y[part])

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        while True:
            yield Batch((self.x[:batch_size],), self.y[:batch_size])

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        return {"class": F.mse_loss(student, teacher)}

    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        with torch.no_grad():
            hits = [model(*b.inputs).argmax(-1) == b.targets for b in self.batches(split, 16, limit=limit)]
        value = 100 * float(torch.cat(hits).double().mean())
        return Quality(metric=self.metric, split=split, value=value, num_examples=len(torch.cat(hits)), interval=None)

    def timeline(self, model: nn.Module) -> None:
        return None


def run_own(task: Any, out: Path, quiet: Console) -> Any:
    measure = Measure(batch_sizes=(2,), threads=1, repeats=3, warmup=0)
    stages = (BlockDrop(blocks=("0",)),)
    recipe = Recipe(name="r", task="own", seed=0, device="cpu", stages=stages, measure=measure)
    return run(recipe, task=task, out=out, console=quiet)


def test_a_metric_in_percent_is_kept_as_it_is(tmp_path: Path, quiet: Console) -> None:
    record = run_own(Own(), tmp_path / "run", quiet)
    assert record.baseline.measurement.quality_on("test").value == 100.0


def shuffled(first: int) -> list[int]:
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    return [first + int(place) for place in order]


SHARED: dict[str, tuple[dict[str, list[int]], str]] = {
    "holdout is calibration in another order": ({"holdout": shuffled(COUNT)}, "calibration and holdout share 60 of"),
    "test is validation": ({"test": list(range(3 * COUNT, 4 * COUNT))}, "validation and test share 60 of the 60"),
    "a part of test is for scoring": ({"test": [*range(4 * COUNT, 5 * COUNT), *range(5)]}, "score and test share 5 of"),
}


@pytest.mark.parametrize("kind", list(SHARED))
def test_splits_that_share_examples(kind: str, tmp_path: Path, quiet: Console) -> None:
    places, message = SHARED[kind]
    with pytest.raises(UserError, match=message):
        run_own(Own(**places), tmp_path / "run", quiet)
    assert not (tmp_path / "run" / "run.json").exists()


def test_scoring_on_calibration_data_and_a_rare_twin_pass() -> None:
    check_splits(Own(score=list(range(COUNT, 2 * COUNT))))
    check_splits(Own(test=[*range(4 * COUNT, 5 * COUNT), 0]))  # one of 61: large collections have twins


def test_rows_that_train_holds_twice_are_in_one_of_its_splits() -> None:
    x, y = torch.randn(30, 8), torch.arange(30) % 4
    other, labels = torch.randn(20, 8), torch.arange(20) % 4
    build = Own().build_model
    task = ClassificationTask(
        build,
        build(),
        train=(torch.cat([x, x]), torch.cat([y, y])),
        validation=(other[:10], labels[:10]),
        test=(other[10:], labels[10:]),
        fixed_examples=10,
    )
    rows = {
        split: {tuple(row.tolist()) for batch in task.batches(split, 4) for row in batch.inputs[0]}
        for split in ("score", "calibration", "holdout")
    }
    assert len(rows["score"] | rows["calibration"] | rows["holdout"]) == 30


def test_example_inputs_that_are_drawn_anew() -> None:
    class Drawing(Own):
        def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
            return (torch.randn(batch_size, 8),)

    first = preflight_of(Drawing()).answers[0]
    assert (first.question, first.answer) == ("one_example", "no")
    assert "gives other inputs at every call" in first.reason


def test_a_metric_of_training_mode_is_none(tmp_path: Path, quiet: Console) -> None:
    """BatchNorm would compute something else there, and learn from validation data."""

    class Training(Own):
        def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
            return super().evaluate(model.train(), split, limit=limit)

    with pytest.raises(StageError, match="evaluate of task 'own' puts the model into training mode"):
        run_own(Training(), tmp_path / "run", quiet)
