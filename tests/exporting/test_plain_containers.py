"""Plain exports of models whose blocks return more than a tensor, or are more than what they compute."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import own_model
from tests.helpers.handing_on_nets import (
    Chain,
    DataclassFromPlain,
    InDictBesideANumber,
    InDictFromPlain,
    InList,
    NamedTupleFromPlain,
    Positional,
    by_attribute,
)
from tests.helpers.plain_exports import compressed, exported, run_here, save, task_of
from toolkit.blocks.find import find_blocks

DIM = 8

IDS = (torch.arange(14).reshape(2, 7) % 5,)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(monkeypatch)


def in_order(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> Any:
    return block(x, mask)


def mask_first(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> Any:
    return block(mask, x)[::-1]


def by_key(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> Any:
    out = block(x, mask)
    return out["x"], out["mask"]


def beside_a_number(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> Any:
    return tuple(block(0, {"x": x, "mask": mask}).values())


def by_keyword(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> Any:
    return block(x=x, mask=mask)


class Reading(nn.Module):
    """Reads plain attributes of its first block."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(DIM, 2, 16, batch_first=True)
        self.embed = nn.Embedding(9, DIM)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.encoder(self.embed(ids))


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (functools.partial(Chain, Positional, in_order), '"kind": "tuple", "length": 2, "handed": ((1, (1,)),)'),
        (functools.partial(Chain, InList, mask_first), '"kind": "list"'),
        (functools.partial(Chain, InDictFromPlain, by_key), '"kind": "mapping"'),
        (functools.partial(Chain, InDictBesideANumber, beside_a_number), '"like": 1'),
        (functools.partial(Chain, DataclassFromPlain, by_attribute), '"kind": "dataclass"'),
        (functools.partial(Chain, NamedTupleFromPlain, by_keyword), '"kind": "named_tuple"'),
        (Reading, "plain_attributes_of(model.get_submodule(name))"),
    ],
    ids=["tuple", "list", "dict", "same dict", "dataclass", "named tuple", "attributes"],
)
def test_whatever_blocks_return(build: Any, line: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = build().eval()
    blocks = [name for name in find_blocks(dense, IDS) if name.rpartition(".")[2] in "02"]
    assert len(blocks) == 2
    save(tmp_path / "model", compressed(dense, IDS, blocks), dense, IDS)
    _, text = exported(tmp_path / "model", task_of(build, IDS))
    assert line in text and "class Removed(InPlaceOfAny):" in text


def test_blocks_called_by_keyword(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = own_model.Sensor().eval()
    inputs = (torch.randn(2, 3, 20), torch.tensor([20, 14]))
    save(tmp_path / "model", compressed(dense, inputs, ["near", "wide.five"], cuts=2), dense, inputs)
    _, text = exported(tmp_path / "model", task_of(own_model.Sensor, inputs))
    assert '"near": {"kind": "tuple"' in text
    assert "class Sensor(nn.Module):" in text, "the file is the toolkit's tests', but it does not import the toolkit"
