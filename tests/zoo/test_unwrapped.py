"""Weights as people save them: whole checkpoints, averages, and names with a wrapper's prefix."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from toolkit.base.errors import UserError
from toolkit.zoo.weights import load_weights


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


TRAINED = {name: torch.rand_like(value.float()).to(value.dtype) for name, value in net().state_dict().items()}
OTHER = {name: value + 1 for name, value in TRAINED.items()}


def named(change: str) -> dict[str, Tensor]:
    return {change.format(name): value for name, value in TRAINED.items()}


def averaged() -> dict[str, Any]:
    model = net()
    model.load_state_dict(TRAINED)
    state: dict[str, Any] = AveragedModel(model).state_dict()
    assert "n_averaged" in state
    return state


def optimizer() -> dict[str, Any]:
    model = net()
    adam = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 3)).sum().backward()
    adam.step()
    return adam.state_dict()


CONTENTS: dict[str, Any] = {
    "state_dict": {"state_dict": TRAINED, "epoch": 3},
    "model": {"model": TRAINED, "optimizer": optimizer(), "args": argparse.Namespace(lr=0.1)},
    "model_state_dict": {"epoch": 1, "model_state_dict": TRAINED},
    "ema": {"ema": TRAINED},
    "ema, two levels": {"ema": {"state_dict": TRAINED, "decay": 0.9}},
    "model_ema": {"model_ema": averaged()},
    "another model too": {"model": TRAINED, "teacher": {"far": torch.zeros(1)}},
    "module.": named("module.{}"),
    "_orig_mod.": named("_orig_mod.{}"),
    "model.": named("model.{}"),
    "both prefixes": {"state_dict": named("module._orig_mod.{}")},
    "other order": {"state_dict": named("_orig_mod.module.{}")},
    "inner prefix": {name.replace(".", "._orig_mod.", 1): value for name, value in TRAINED.items()},
}


@pytest.mark.parametrize("case", CONTENTS)
def test_the_weights_are_found(case: str, tmp_path: Path) -> None:
    torch.save(CONTENTS[case], tmp_path / "w.pth")
    model = net()
    load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(value, TRAINED[name]) for name, value in model.state_dict().items())


def test_prefixes_in_safetensors(tmp_path: Path) -> None:
    save_file(named("module.{}"), tmp_path / "w.safetensors")
    model = net()
    load_weights(model, tmp_path / "w.safetensors")
    assert torch.equal(model.state_dict()["0.weight"], TRAINED["0.weight"])


@pytest.mark.parametrize(("key", "expected"), [("model", TRAINED), ("ema.shadow", OTHER)])
def test_the_key_chooses(key: str, expected: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": TRAINED, "ema": {"shadow": OTHER}}, tmp_path / "w.pt")
    model = net()
    load_weights(model, tmp_path / "w.pt", key)
    assert torch.equal(model.state_dict()["0.bias"], expected["0.bias"])


def test_an_unknown_key(tmp_path: Path) -> None:
    torch.save({"model": TRAINED, "ema": OTHER}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"no weights under the key 'emma'; the keys of weights in it are: model, ema$"):
        load_weights(net(), tmp_path / "w.pt", "emma")


def test_prefixes_that_are_the_models_own_stay(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": net()})
    torch.save(named("module.{}"), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.state_dict()["module.0.bias"], TRAINED["0.bias"])
