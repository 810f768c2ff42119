"""The starting point of a training is a candidate: one that makes the model worse hands back what it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.qualities import quality_of
from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.hooks.tensors import tensor_bytes
from toolkit.tasks.task import Batch
from toolkit.training.checkpoint import FitResult
from toolkit.training.fit import FitConfig, Objective, fit

CONFIG = FitConfig(max_steps=12, learning_rate=1.0, weight_decay=0.0, warmup_steps=0, validate_every=3)


class Net(nn.Module):
    """With statistics, a buffer that is not saved and counts calls, and a frozen layer; it computes the sum nearly."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen, self.sum = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.register_buffer("last", torch.zeros(1), persistent=False)
        self.frozen.requires_grad_(False)
        with torch.no_grad():
            self.frozen.weight.copy_(torch.eye(4))
            self.frozen.bias.zero_()
            self.sum.weight.fill_(1.0)
            self.sum.bias.fill_(-0.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.last = x[:, 0].detach().clone()  # another tensor, of another shape
        return self.sum(self.frozen(self.norm(x)))


def everything(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor_bytes(part) for name, part in (*model.named_parameters(), *model.named_buffers())}


def batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    while True:
        inputs = torch.randn(6, 4, generator=generator)
        yield Batch((inputs,), inputs.sum(1, keepdim=True))


def squared(model: nn.Module, batch: Batch) -> Tensor:
    return (model(*batch.inputs) - batch.targets).square().mean()


@torch.no_grad()
def distance(model: nn.Module) -> float:
    probe = torch.linspace(-1, 1, 20).reshape(5, 4)
    return -float((model(probe) - probe.sum(1, keepdim=True)).square().mean())


def train(
    model: nn.Module,
    quiet: Console,
    config: FitConfig = CONFIG,
    validate: Callable[[nn.Module], float] = distance,
    loss: Callable[[nn.Module, Batch], Tensor] = squared,
    checkpoint: Path | None = None,
) -> FitResult:
    return fit(
        model,
        Objective(batches(), loss, lambda trained: quality_of(validate(trained))),
        config,
        judge_start=True,
        console=quiet,
        title="t",
        checkpoint=checkpoint,
        checkpoint_every=2,
    )


def at_step(broken: int, loss: Callable[[nn.Module, Batch], Tensor]) -> Callable[[nn.Module, Batch], Tensor]:
    """Gives the usual loss until step `broken`, which gets `loss`."""
    calls = iter(range(1, 1000))
    return lambda model, batch: loss(model, batch) if next(calls) == broken else squared(model, batch)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("patience", [None, 2])
def test_a_rate_that_ruins_the_model_leaves_it_to_the_bit(
    ema_decay: float, optimizer: str, patience: int | None, quiet: Console
) -> None:
    model = Net()
    before = everything(model)
    config = replace(CONFIG, ema_decay=ema_decay, optimizer=optimizer, patience=patience)
    result = train(model, quiet, config)
    assert result.best_step == 0 and result.steps > 0
    assert result.start is not None and result.start.validation > max(point.validation for point in result.curve)
    assert everything(model) == before
    assert not model.training


@pytest.mark.parametrize("broken", [1, 5, 12])
@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda model, batch: squared(model, batch) * float("nan"), "the training loss became nan"),
        (lambda model, batch: squared(model, batch) * float("inf"), "the training loss became inf"),
        (
            lambda model, batch: (model(*batch.inputs) * 0).sqrt().sum(),  # 0, with a slope that is not finite
            "the gradient of the training loss became nan",
        ),
    ],
    ids=["nan", "infinite", "slope"],
)
def test_numbers_that_are_not_finite_end_the_training_and_leave_the_model(
    broken: int, loss: Callable[[nn.Module, Batch], Tensor], words: str, quiet: Console
) -> None:
    model = Net()
    before = everything(model)
    result = train(model, quiet, loss=at_step(broken, loss))
    assert (result.stopped, result.failure, result.steps) == ("broken", words, broken - 1)
    assert everything(model) == before
    with pytest.raises(StageError, match=f"{words}; lower learning_rate"):
        train(Net(), quiet, replace(CONFIG, select="last"), loss=at_step(broken, loss))


def test_outputs_that_break_on_the_way_end_the_training_but_not_at_the_start(quiet: Console) -> None:
    model = Net()
    before, values = everything(model), iter([0.5, None])

    def validate(_: nn.Module) -> float:
        value = next(values)
        if value is None:
            raise StageError("the model's outputs are not finite numbers")
        return value

    result = train(model, quiet, validate=validate)
    assert result.failure == "after 3 steps the model's outputs are not finite numbers"
    assert everything(model) == before
    values = iter([None])
    with pytest.raises(StageError, match=r"^the model's outputs are not finite numbers"):
        train(model, quiet, validate=validate)


def test_what_a_broken_training_had_reached_before_is_kept(quiet: Console) -> None:
    model, values, seen = Net(), iter([0.1, 0.9, 0.5]), []

    def validate(trained: nn.Module) -> float:
        seen.append(everything(trained))
        return next(values)

    result = train(model, quiet, validate=validate, loss=at_step(8, lambda model, batch: squared(model, batch) / 0.0))
    assert (result.best_step, result.stopped) == (3, "broken")
    saved = model.state_dict().keys()
    assert {name: everything(model)[name] for name in saved} == {name: seen[1][name] for name in saved}


def test_as_good_as_before_is_not_better(quiet: Console) -> None:
    model = Net()
    before = everything(model)
    assert train(model, quiet, validate=lambda _: 0.5).best_step == 0
    assert everything(model) == before


def test_patience_waits_for_the_training_not_for_the_starting_point(quiet: Console) -> None:
    """A good model dips first: what stops the training is that it no longer gets better than itself."""
    values = iter([0.9, 0.1, 0.2, 0.3, 0.95])
    result = train(Net(), quiet, replace(CONFIG, patience=1), lambda _: next(values))
    assert (result.steps, result.stopped, result.best_step) == (12, "max_steps", 12)


def test_the_last_weights_stay_where_they_are_asked_for(quiet: Console) -> None:
    model = Net()
    before = everything(model)
    result = train(model, quiet, replace(CONFIG, select="last"))
    assert result.best_step == 12
    assert result.start is not None and result.start.validation > result.curve[-1].validation
    assert everything(model) != before


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("broken", [None, 10])
def test_a_stopped_training_goes_on_and_still_knows_its_start(
    ema_decay: float, broken: int | None, tmp_path: Path, quiet: Console
) -> None:
    config = replace(CONFIG, ema_decay=ema_decay)

    def nan(model: nn.Module, batch: Batch) -> Tensor:
        return squared(model, batch) * float("nan")

    def killed(*_: object) -> Tensor:
        raise Killed

    model, path = Net(), tmp_path / "fit.safetensors"
    before = everything(model)
    with pytest.raises(Killed):
        train(model, quiet, config, loss=at_step(8, killed), checkpoint=path)
    judged = []
    again = Net()
    result = train(
        again,
        quiet,
        config,
        validate=lambda trained: judged.append(1) or distance(trained),
        loss=squared if broken is None else at_step(broken - 6, nan),
        checkpoint=path,
    )
    whole = train(Net(), quiet, config, loss=squared if broken is None else at_step(broken, nan))
    assert result == whole and result.best_step == 0
    assert len(judged) == len(whole.curve) - 2  # neither the start nor the two points before the stop again
    assert everything(again) == before
    assert train(Net(), quiet, config, loss=killed, checkpoint=path) == whole  # it is over: no step is made
