"""recover with either optimiser: another curve, the same bits after a stop, and no trace of the default in hashes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.helpers.details import as_json
from tests.helpers.tiny_task import TinyTask
from toolkit.base.errors import RecipeError
from toolkit.base.files import content_sha256
from toolkit.recipe.read import load_recipe
from toolkit.stages.context import StageContext
from toolkit.stages.recover.apply import apply_recover
from toolkit.stages.recover.settings import Recover
from toolkit.stages.rounds import RoundStore
from toolkit.tasks.task import Batch

STEPS = 56  # more than 50, after which the first checkpoint is written
SGD = Recover(max_steps=STEPS, validate_every=8, batch_size=8, optimizer="sgd", momentum=0.8, learning_rate=0.01)
RECIPE = """\
version: 1
name: sgd
task: tad-watch
seed: 0
device: cpu
stages:
  - {type: recover, momentum: 0.5}
measure: {}
"""


class Stop(BaseException):
    """Stands for a kill: nothing may catch it."""


def stopping(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Ends the process after 53 batches."""
    yield from islice(batches, 53)
    raise Stop


def student(context: StageContext) -> nn.Module:
    """The dense model with its weights moved, so that there is something to recover."""
    model = copy.deepcopy(context.dense).requires_grad_(True)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def test_a_stopped_training_goes_on_with_its_momentum(
    tiny_task: TinyTask, tiny_context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = apply_recover(student(tiny_context), tiny_task, SGD, tiny_context)
    context = replace(tiny_context, rounds=RoundStore(tmp_path))
    real = tiny_task.train_batches
    with monkeypatch.context() as patch:
        patch.setattr(tiny_task, "train_batches", lambda *args: stopping(real(*args)))
        with pytest.raises(Stop):
            apply_recover(student(tiny_context), tiny_task, SGD, context)
    assert list(tmp_path.rglob("*.safetensors"))
    model, detail = apply_recover(student(tiny_context), tiny_task, SGD, context)
    assert detail == expected
    assert all(map(torch.equal, model.state_dict().values(), whole.state_dict().values()))


def test_the_optimisers_learn_in_their_own_ways(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    curves = []
    for config in (SGD, Recover(**{**SGD.model_dump(exclude={"momentum"}), "optimizer": "adamw"})):
        _, detail = as_json(apply_recover)(student(tiny_context), tiny_task, config, tiny_context)
        curves.append([point["loss"] for point in detail["curve"]])
    assert all(curve[-1] < curve[0] for curve in curves)
    assert curves[0] != curves[1]


@pytest.mark.parametrize("keys", [{"momentum": 0.5}, {"momentum": 0.9}, {"optimizer": "adamw", "momentum": 0.9}])
def test_momentum_is_refused_without_sgd(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="momentum: only with optimizer: sgd"):
        Recover(**keys)


def test_the_fault_has_its_line_and_is_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert str(error.value) == f"{path}:7: stages.0: momentum: only with optimizer: sgd; adamw has its own"


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"momentum": -0.1}, {"optimizer": "adam"}])
def test_what_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recover(**{"optimizer": "sgd", **wrong})


def test_adamw_leaves_no_trace_in_what_is_hashed() -> None:
    plain = Recover().model_dump(mode="json")
    assert "optimizer" not in plain and "momentum" not in plain
    told = Recover(optimizer="sgd").model_dump(mode="json")
    assert told == {**plain, "optimizer": "sgd"}
    assert Recover(**told).momentum == 0.9
    assert content_sha256(Recover(optimizer="adamw").model_dump(mode="json")) == content_sha256(plain)


def test_sgd_is_told() -> None:
    assert "SGD with momentum 0.8" in SGD.in_words() and "SGD" not in Recover().in_words()
