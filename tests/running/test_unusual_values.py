"""Unusual parameters, copies, gradients and inputs run, or are refused with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.own_net import CUT, DROP, Block, Net, data, run_own, task_of
from toolkit import (
    preflight_of,
)
from toolkit.base.console import Console
from toolkit.base.errors import StageError, UserError
from toolkit.hooks.copies import copy_model


class Permuted(Net):
    """Holds whole numbers as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.arange(8).flip(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, self.order])


def test_whole_numbers_as_a_parameter_can_be_trained_around() -> None:
    answers = {answer.question: answer for answer in preflight_of(task_of(Permuted)).answers}
    assert answers["trains"].answer == "yes"


@pytest.mark.parametrize("importance", ["taylor", "l2"])
def test_whole_numbers_as_a_parameter_in_a_cut(importance: Any, tmp_path: Path, quiet: Console) -> None:
    cut = CUT.model_copy(update={"importance": importance})
    model = run_own(task_of(Permuted), tmp_path / "run", quiet, cut)
    assert model.get_submodule("blocks.0.a").weight.shape == (8, 8)
    assert model.get_parameter("order").tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


class Forgetful(Block):
    """Copies itself by hand."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Forgetful:
        new = Forgetful()
        new.load_state_dict(self.state_dict())
        return new


def test_copies_that_forget_what_is_frozen_or_hooked() -> None:
    net = Net(Forgetful)
    copy_model(net)
    net.blocks[1].b.requires_grad_(False)
    with pytest.raises(UserError, match=r"blocks.1.b \(Linear\) does not copy which of its parameters are frozen"):
        copy_model(net)
    net.requires_grad_(True)
    net.blocks[2].register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match=r"blocks.2 \(Forgetful\) does not copy its hooks"):
        copy_model(net)


def test_a_copy_by_hand_that_takes_one_width_alone_is_named() -> None:
    net = Net(Forgetful)
    net.blocks[1].a = nn.Linear(8, 12)
    with pytest.raises(UserError, match=r"blocks.0 \(Forgetful\) cannot be copied.*check __deepcopy__"):
        copy_model(net)


class Mapped(Block):
    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(super().forward)(x)


def test_a_model_that_cannot_be_followed_is_told_so(tmp_path: Path, quiet: Console) -> None:
    with pytest.raises(StageError, match="block_drop: the model cannot be followed while it runs with gradients"):
        run_own(task_of(lambda: Net(Mapped)), tmp_path / "run", quiet, DROP)


class Bag(nn.Module):
    """Sparse gradients, and rows that the forward pass scales down: ids [B, 5] -> [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.net = nn.Embedding(20, 8, sparse=True, max_norm=1.0), Net()

    def forward(self, ids: Tensor) -> Tensor:
        return self.net(self.embed(ids).mean(1))


def test_sparse_gradients_are_found_before_any_work_and_scaled_rows_counted() -> None:
    def ids(count: int) -> tuple[Tensor, Tensor]:
        return torch.randint(0, 20, (count, 5), generator=torch.Generator().manual_seed(count)), data(count)[1]

    preflight = preflight_of(task_of(Bag, train=ids(48), validation=ids(17), test=ids(16)))
    answers = {answer.question: answer for answer in preflight.answers}
    assert "sparse gradients" in answers["trains"].reason
    assert preflight.macs == 3 * 2 * 8 * 16 + 8 * 4


@pytest.mark.parametrize(("kind", "name"), [(torch.float64, "float64"), (torch.int64, "int64")])
def test_inputs_of_another_number_type(kind: torch.dtype, name: str) -> None:
    parts = {split: (data(count)[0].to(kind), data(count)[1]) for split, count in (("train", 48), ("test", 16))}
    with pytest.raises(UserError, match=f"inputs are {name} and the model's weights float32: give inputs.to"):
        task_of(Net, **parts)


def test_examples_that_are_no_numbers_are_named() -> None:
    inputs, labels = data(17)
    inputs[11, 3] = float("nan")
    task = task_of(Net, validation=(inputs, labels))
    with pytest.raises(StageError, match="split validation are not finite numbers: inputs near example 11 are NaN"):
        task.evaluate(task.load_baseline(), "validation")
    model = task.load_baseline()
    model.head.weight.data.fill_(F.relu(torch.tensor(float("inf"))))
    with pytest.raises(StageError, match=r"split test are not finite numbers: the model is broken \(example 0\)"):
        task.evaluate(model, "test")
