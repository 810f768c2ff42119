"""The training loop: schedule, stopping, what is kept, and a loss that is not a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.qualities import quality_of
from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.tasks.task import Batch
from toolkit.training.checkpoint import FitResult
from toolkit.training.fit import FitConfig, Objective, fit

CONFIG = FitConfig(max_steps=20, learning_rate=0.1, weight_decay=0.0, warmup_steps=2, validate_every=5)


def squared(model: nn.Module, batch: Batch) -> Tensor:
    return (model(*batch.inputs) - batch.targets).square().mean()


def train(
    model: nn.Module,
    config: FitConfig,
    quiet: Console,
    validate: Callable[[nn.Module], float],
    loss: Callable[[nn.Module, Batch], Tensor] = squared,
) -> FitResult:
    batch = Batch((torch.eye(4),), torch.arange(4.0)[:, None])
    return fit(
        model,
        Objective(iter(lambda: batch, None), loss, lambda trained: quality_of(validate(trained))),
        config,
        judge_start=False,
        console=quiet,
        title="t",
    )


def test_training_lowers_the_loss_and_notes_the_curve(quiet: Console) -> None:
    torch.manual_seed(0)
    result = train(nn.Linear(4, 1), CONFIG, quiet, lambda _: 0.0)
    assert [point.step for point in result.curve] == [5, 10, 15, 20]
    assert result.curve[-1].loss < result.curve[0].loss
    assert (result.steps, result.stopped) == (20, "max_steps")


def test_patience_stops_and_the_best_weights_come_back(quiet: Console) -> None:
    torch.manual_seed(0)
    model, values, seen = nn.Linear(4, 1), iter([0.1, 0.9, 0.5, 0.4, 0.3]), []

    def validate(trained: nn.Module) -> float:
        seen.append(trained.weight.detach().clone())
        return next(values)

    result = train(model, FitConfig(60, 0.1, 0.0, 2, 5, patience=2), quiet, validate)
    assert (result.stopped, result.steps, result.best_step) == ("patience", 20, 10)
    assert torch.equal(model.weight, seen[1])
    assert not model.training


def test_with_select_last_the_last_weights_stay(quiet: Console) -> None:
    torch.manual_seed(0)
    model, values = nn.Linear(4, 1), iter([0.9, 0.1, 0.1, 0.1])
    result = train(model, replace(CONFIG, select="last"), quiet, lambda _: next(values))
    assert result.best_step == 20


def test_averaged_weights_are_validated_and_kept(quiet: Console) -> None:
    torch.manual_seed(0)
    model, seen = nn.Linear(4, 1), []
    train(
        model,
        FitConfig(5, 0.1, 0.0, 0, 5, ema_decay=0.9),
        quiet,
        lambda average: float(not seen.append(average.weight.detach().clone())),
    )
    assert torch.equal(model.weight, seen[-1])


def test_a_loss_that_is_not_a_number_stops(quiet: Console) -> None:
    with pytest.raises(StageError, match="training loss became nan; lower learning_rate"):
        train(nn.Linear(4, 1), CONFIG, quiet, lambda _: 0.0, loss=lambda m, b: squared(m, b) * float("nan"))


def test_a_validation_that_is_not_a_number_is_never_the_best(quiet: Console) -> None:
    def broken(_: nn.Module) -> float:
        raise StageError("its outputs are not finite numbers")

    with pytest.raises(StageError, match="after 5 steps its outputs are not finite numbers; lower learning_rate"):
        train(nn.Linear(4, 1), CONFIG, quiet, broken)
