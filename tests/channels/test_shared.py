"""Layers that share a tensor are cut as one, or stay with the reason; what was one tensor is one afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut
from toolkit.channels.find import find_groups, half_of
from toolkit.channels.groups import Structure
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model


class Block(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.LayerNorm(8), nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(self.norm(x))))


class Net(nn.Module):
    """Token ids [B, T] -> [B, 20]; `tie` says what is one tensor."""

    def __init__(self, tie: Callable[[Net], None]) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Embedding(20, 8), nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(8, 20, bias=False)
        tie(self)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(ids)).mean(1))


def output_and_embedding(net: Net) -> None:
    net.head.weight = net.embed.weight


def all_of_two_blocks(net: Net) -> None:
    for one, other in zip(net.blocks[0].modules(), net.blocks[2].modules(), strict=True):
        for name, parameter in one.named_parameters(recurse=False):
            setattr(other, name, parameter)


def biases_alone(net: Net) -> None:
    net.blocks[1].a.bias = net.blocks[0].a.bias


def norms_alone(net: Net) -> None:
    net.blocks[1].norm.weight = net.blocks[0].norm.weight


def first_and_second_layer(net: Net) -> None:
    """The matrix that makes the units of one block reads nothing else; in the other it has the roles swapped."""
    net.blocks[0].a, net.blocks[0].b = nn.Linear(8, 8), nn.Linear(8, 8)
    net.blocks[0].b.weight = net.blocks[0].a.weight


IDS = (torch.tensor([[1, 5, 7], [2, 3, 19]]),)


def structure_of(net: Net) -> Structure:
    return find_groups(net, IDS, find_blocks(net, IDS))


def shared(net: nn.Module) -> int:
    """How many names lead to a tensor that another name leads to already."""
    every = list(net.named_parameters(remove_duplicate=False))
    return len(every) - len({id(parameter) for _, parameter in every})


@pytest.mark.parametrize(
    ("tie", "kind", "num_groups"),
    [
        (output_and_embedding, "embedding", 1),
        (all_of_two_blocks, "mlp", 2),
        (all_of_two_blocks, "embedding", 1),
        (biases_alone, "mlp", 2),
        (norms_alone, "embedding", 1),
    ],
)
def test_what_is_one_tensor_is_cut_once_and_saved(
    tie: Callable[[Net], None], kind: str, num_groups: int, tmp_path: Path
) -> None:
    net, dense = Net(tie).eval(), Net(tie).eval()
    groups = [group for group in structure_of(net).groups if group.kind == kind]
    assert len(groups) == num_groups
    before = shared(net)
    cut(net, [half_of(group) for group in groups])
    assert shared(net) == before > 0
    save_model(tmp_path / "model", net, dense, factory={}, example_inputs=IDS, recipe_sha256=None)
    loaded = load_model(tmp_path / "model", dense)
    assert shared(loaded) == before
    torch.testing.assert_close(loaded(*IDS), net(*IDS))


def test_a_tensor_whose_holders_cut_other_dimensions_stays() -> None:
    net = Net(first_and_second_layer).eval()
    found = find_groups(net, IDS, find_blocks(net, IDS), ("embed",))
    assert "blocks.0.a" not in [group.name for group in found.groups]
    assert "shares a tensor with blocks.0" in found.refused["blocks.0.a"]


def test_a_tensor_that_a_protected_layer_holds_too_stays() -> None:
    net = Net(all_of_two_blocks).eval()
    found = find_groups(net, IDS, find_blocks(net, IDS), ("blocks.2.a",))
    assert "shares a tensor with blocks.2.a" in found.refused["blocks.0.a"]


def test_a_cut_of_one_holder_alone_is_an_error() -> None:
    net = Net(all_of_two_blocks).eval()
    (group,) = [group for group in structure_of(net).groups if group.name == "blocks.0.a"]
    one = [slot for slot in group.slots if slot.module.startswith("blocks.0.")]
    with pytest.raises(ValueError, match="are one tensor, which cannot be cut in one place alone"):
        cut(net, [half_of(replace(group, slots=tuple(one)))])
