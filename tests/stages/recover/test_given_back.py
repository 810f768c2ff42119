"""Models of several kinds whose labels are their own answers: no training is better, and each comes back to the bit."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.own_net import Net, data, run_own, task_of
from tests.helpers.qualities import quality_of
from toolkit import Align, BlockDrop, Recover, load_record
from toolkit.base.console import Console
from toolkit.hooks.tensors import tensor_bytes
from toolkit.tasks.task import Batch
from toolkit.training.fit import FitConfig, Objective, fit

RUINOUS: dict[str, Any] = {
    **{"learning_rate": 1.0, "max_steps": 4, "validate_every": 2, "batch_size": 8},
    "warmup_steps": 0,
}
STAGES = {
    "recover": Recover(**RUINOUS),
    "align": Align(**RUINOUS, trainable="full", ema_decay=0.0),
    "align, averaged": Align(**RUINOUS, trainable="full", ema_decay=0.5, patience=1),
}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.layer(x)))


class Maps(nn.Module):
    """Convolutions with batch norms, whose statistics move in training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv1d(1, 4, 3, padding=1), nn.Linear(4, 4)
        self.layers = nn.Sequential(Residual(), Residual())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(x[:, None])).mean(-1))


class Tied(nn.Module):
    """Words in, words out, by one table; a second name for it is in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(50, 8), Net(), nn.Linear(8, 50, bias=False)
        self.body.head = nn.Linear(8, 8)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.embed(ids).mean(1)))


class Codes(Net):
    """Moves its table of codes towards what it sees in training, as vector quantisers do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.codes.lerp_(x.detach().mean(0), 0.5)
        return super().forward(x - self.codes)


class Cooling(Net):
    """Sharpens its logits a little at every step of a training, and centres them: plain attributes, no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature, self.stage, self.centre = 1.0, "warm", torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x) / self.temperature - self.centre
        if self.training:
            self.temperature *= 0.5
            self.stage = "cold"
            self.centre += logits.detach().mean(0)
        return logits


def ids(rows: Tensor) -> Tensor:
    return (rows.abs() * 40).long() % 50


@dataclass(frozen=True)
class Situation:
    build: Callable[[], nn.Module]
    make: Callable[[Tensor], Tensor] = lambda rows: rows


SITUATIONS = {
    "batch norms": Situation(Maps),
    "one table for words in and out": Situation(Tied, ids),
    "a buffer that training moves": Situation(Codes),
    "attributes that training moves": Situation(Cooling),
}


def everything(model: nn.Module) -> dict[str, Any]:
    tensors = {name: tensor_bytes(part) for name, part in (*model.named_parameters(), *model.named_buffers())}
    own = {name: tensor_bytes(value) if isinstance(value, Tensor) else value for name, value in vars(model).items()}
    return tensors | {name: value for name, value in own.items() if isinstance(value, (bytes, float, str))}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_nothing_is_better_than_their_own_answers(situation: str, stage: str, tmp_path: Path) -> None:
    chosen, said = SITUATIONS[situation], io.StringIO()
    torch.manual_seed(1)
    trained = chosen.build().eval()
    parts: dict[str, Any] = {}
    for name, count in (("train", 48), ("validation", 17), ("test", 16)):
        rows = chosen.make(data(count)[0])
        with torch.no_grad():
            parts[name] = rows, trained(rows).argmax(-1)
    model = run_own(task_of(chosen.build, trained, **parts), tmp_path / "run", Console(said), STAGES[stage])
    assert everything(model.eval()) == everything(trained)
    (step,) = load_record(tmp_path / "run").steps[1:]
    assert step.detail["kept_step"] == 0
    assert step.measurement.quality_on("test").value == 1.0
    assert "kept the model as it came" in said.getvalue()


def test_a_dropped_block_and_a_ruinous_training_leave_the_drop_alone(tmp_path: Path) -> None:
    """The labels are the answers of the model without its second block: the drop comes first, then what is worse."""
    torch.manual_seed(1)
    trained = Net().eval()
    without = Net().eval()
    without.load_state_dict(trained.state_dict())
    without.blocks[1] = nn.Identity()
    parts: dict[str, Any] = {}
    for name, count in (("train", 48), ("validation", 17), ("test", 16)):
        rows = data(count)[0]
        with torch.no_grad():
            parts[name] = rows, without(rows).argmax(-1)
    drop = BlockDrop(blocks=("blocks.1",), repair="none", align=Align(**RUINOUS, trainable="full", ema_decay=0.0))
    model = run_own(task_of(Net, trained, **parts), tmp_path / "run", Console(io.StringIO()), drop, STAGES["recover"])
    kept = without.state_dict()
    assert {name: tensor_bytes(part) for name, part in model.state_dict().items()} == {
        name: tensor_bytes(part) for name, part in kept.items()
    }


@pytest.mark.parametrize(("ema_decay", "cold"), [(0.0, 0.25), (0.5, 1.0)])
def test_the_best_step_is_kept_with_its_own_attributes(ema_decay: float, cold: float, quiet: Console) -> None:
    """Two steps are the best of four. The averaged model, which is the one that was validated, has not been trained."""
    model, values = Cooling(), iter([0.1, 0.9, 0.5])
    rows, labels = data(8)

    def batches() -> Any:
        while True:
            yield Batch((rows,), labels)

    objective = Objective(
        batches(),
        lambda net, batch: nn.functional.cross_entropy(net(*batch.inputs), batch.targets),
        lambda _: quality_of(next(values)),
    )
    config = FitConfig(
        max_steps=4, learning_rate=1e-3, weight_decay=0.0, warmup_steps=0, validate_every=2, ema_decay=ema_decay
    )
    result = fit(model, objective, config, judge_start=True, console=quiet, title="t")
    assert result.best_step == 2
    assert model.temperature == cold
