"""A training that was interrupted and resumed ends with the same bits as one that was not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tests.helpers.qualities import quality_of
from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.tasks.task import Batch
from toolkit.training.checkpoint import FitResult
from toolkit.training.fit import FitConfig, Objective, fit

CONFIG = FitConfig(20, 0.05, 0.01, warmup_steps=3, validate_every=4, patience=4, ema_decay=0.9)
EVERY = 3


class Killed(BaseException):
    """Stands for the end of the process."""


def make_model() -> nn.Module:
    """With random numbers in its forward pass, statistics that are no parameters, and a frozen layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 8), nn.Linear(8, 1))
    model[3].requires_grad_(False)
    return model


def batches(killed_at: int | None) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    number = 0
    while True:
        number += 1
        if number == killed_at:
            raise Killed
        inputs = torch.randn(6, 4, generator=generator)
        yield Batch((inputs,), inputs.sum(1, keepdim=True))


def squared(model: nn.Module, batch: Batch) -> Tensor:
    return (model(*batch.inputs) - batch.targets).square().mean()


@torch.no_grad()
def validate(model: nn.Module) -> float:
    model.eval()
    probe = torch.linspace(-1, 1, 20).reshape(5, 4)
    return -float((model(probe) - probe.sum(1, keepdim=True)).square().mean())


def train(
    model: nn.Module,
    path: Path | None,
    *,
    killed_at: int | None = None,
    config: FitConfig = CONFIG,
    judge_start: bool = False,
    console: Console,
) -> FitResult:
    return fit(
        model,
        Objective(batches(killed_at), squared, lambda trained: quality_of(validate(trained))),
        config,
        judge_start=judge_start,
        console=console,
        title="t",
        checkpoint=path,
        checkpoint_every=EVERY,
    )


def same_bits(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("select", ["best", "last"])
@pytest.mark.parametrize("judge_start", [False, True])
def test_killed_at_any_moment_and_resumed(
    ema_decay: float, select: Literal["best", "last"], judge_start: bool, tmp_path: Path, quiet: Console
) -> None:
    config = FitConfig(20, 0.05, 0.01, warmup_steps=3, validate_every=4, ema_decay=ema_decay, select=select)
    whole = make_model()
    expected = train(whole, None, config=config, judge_start=judge_start, console=quiet)
    for killed_at in (2, 4, 9, 18):
        path = tmp_path / f"{killed_at}.safetensors"
        with pytest.raises(Killed):
            train(make_model(), path, killed_at=killed_at, config=config, judge_start=judge_start, console=quiet)
        assert path.exists() == (killed_at > EVERY)
        model = make_model()
        torch.manual_seed(123 if path.exists() else 0)  # another process is in another random state
        if not path.exists():
            model = make_model()
        result = train(model, path, config=config, judge_start=judge_start, console=quiet)
        assert result == expected
        assert same_bits(model, whole)


def test_a_finished_training_is_not_run_again(tmp_path: Path, quiet: Console) -> None:
    path = tmp_path / "fit.safetensors"
    model, again = make_model(), make_model()
    expected = train(model, path, console=quiet)
    assert train(again, path, killed_at=expected.steps + 1, console=quiet) == expected
    assert same_bits(model, again)
    assert sorted(tmp_path.iterdir()) == [path]


def test_only_what_changes_is_kept(tmp_path: Path, quiet: Console) -> None:
    path = tmp_path / "new" / "fit.safetensors"
    train(make_model(), path, console=quiet)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
    assert {"model/0.weight", "average/1.running_mean", "best/4.bias", "random/cpu"} <= names
    assert not any("/3." in name for name in names if not name.startswith("optimiser/"))


def test_checkpoints_of_other_trainings_are_refused(tmp_path: Path, quiet: Console) -> None:
    path = tmp_path / "fit.safetensors"
    train(make_model(), path, console=quiet)
    other = make_model()
    with torch.no_grad():
        other[3].bias.add_(1.0)  # a frozen weight
    for model, config in ((other, CONFIG), (make_model(), FitConfig(21, 0.05, 0.01, 3, 4))):
        with pytest.raises(StageError, match="other settings or other weights to begin with; remove it"):
            train(model, path, config=config, console=quiet)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, quiet: Console) -> None:
    path = tmp_path / "fit.safetensors"
    train(make_model(), path, console=quiet)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StageError, match=r"damaged .* remove it"):
        train(make_model(), path, console=quiet)


def test_checkpoints_of_before_there_was_sgd_still_fit() -> None:
    assert not {"optimizer", "momentum"} & CONFIG.identity().keys()
    assert {"optimizer", "momentum"} < replace(CONFIG, optimizer="sgd").identity().keys()
