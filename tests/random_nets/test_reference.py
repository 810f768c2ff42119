"""The reference of the random nets computes what is worked out by hand, and notices cuts that are wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.random_nets.attention import Attention
from tests.random_nets.masked import UnlikeMarksError
from tests.random_nets.parts import Draw, filled
from tests.random_nets.reference import expected_of

KEPT, GONE = [0, 2, 3], [1]


def pair(middle: nn.Module) -> nn.Module:
    return filled(nn.Sequential(nn.Linear(3, 4), middle, nn.Linear(4, 2)), 0)


def narrowed(wide: nn.Module, rows: list[int], columns: list[int]) -> nn.Module:
    """The first layer without the outputs that are not among `rows`, the last one without other inputs."""
    narrow = copy.deepcopy(wide)
    first, last = narrow[0], narrow[2]
    first.weight, first.bias = nn.Parameter(first.weight[rows]), nn.Parameter(first.bias[rows])
    last.weight = nn.Parameter(last.weight[:, columns])
    if isinstance(narrow[1], nn.LayerNorm):
        narrow[1].weight, narrow[1].bias = (nn.Parameter(part[rows]) for part in (narrow[1].weight, narrow[1].bias))
    return narrow


def rows(seed: int = 0) -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("middle", [nn.Sigmoid(), nn.LayerNorm(4), nn.Softmax(-1)])
def test_what_is_gone_counts_in_nothing(middle: nn.Module) -> None:
    """Not where an activation of zero is none, nor in a mean, nor in a sum of exponentials."""
    wide, x = pair(middle), rows()
    narrow = narrowed(wide, KEPT, KEPT)
    found = expected_of(wide, narrow, (), (x,))
    y = x @ wide[0].weight[KEPT].T + wide[0].bias[KEPT]
    if isinstance(middle, nn.LayerNorm):
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        y = y * wide[1].weight[KEPT] + wide[1].bias[KEPT]
    else:
        y = y.sigmoid() if isinstance(middle, nn.Sigmoid) else y.softmax(-1)
    torch.testing.assert_close(found.outputs[0], y @ wide[2].weight[:, KEPT].T + wide[2].bias)
    assert found.macs == 3 * 3 + 3 * 2


def test_weights_for_other_channels_than_those_that_are_left() -> None:
    wide = pair(nn.ReLU())
    with pytest.raises(UnlikeMarksError, match="weights for other channels"):
        expected_of(wide, narrowed(wide, KEPT, [0, 1, 3]), (), (rows(),))


def test_weights_that_were_not_there_or_lie_elsewhere() -> None:
    wide = pair(nn.ReLU())
    with pytest.raises(AssertionError, match="another order"):
        expected_of(wide, narrowed(wide, [2, 0, 3], [2, 0, 3]), (), (rows(),))
    narrow = narrowed(wide, KEPT, KEPT)
    narrow[0].weight = nn.Parameter(narrow[0].weight + 1)
    with pytest.raises(AssertionError, match="numbers that were not there"):
        expected_of(wide, narrow, (), (rows(),))


def test_branches_that_lose_different_channels_do_not_add_up() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.one(x) + self.other(x))

    wide = filled(Sum(), 0)
    narrow = copy.deepcopy(wide)
    for layer, kept in ((narrow.one, [0, 1]), (narrow.other, [0, 2])):
        layer.weight, layer.bias = nn.Parameter(layer.weight[kept]), nn.Parameter(layer.bias[kept])
    narrow.last.weight = nn.Parameter(narrow.last.weight[:, [0, 1]])
    with pytest.raises(UnlikeMarksError, match="different channels left"):
        expected_of(wide, narrow, (), (rows(),))


@pytest.mark.parametrize("seed", range(4))
def test_a_head_that_is_gone_adds_nothing_to_attention(seed: int) -> None:
    """The output of the others is what it was: their parts of the last layer's sum stay."""
    wide = next(
        net
        for net in (filled(Attention(Draw(f"{seed} {number}"), 6), seed) for number in range(200))
        if (net.num_heads, net.num_kv_heads, net.fused) == (2, 2, "nothing")
    )
    narrow, width = copy.deepcopy(wide), wide.head_dim
    for layer in (narrow.q, narrow.k, narrow.v):
        layer.weight = nn.Parameter(layer.weight[width:])
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias[width:])
    narrow.proj.weight = nn.Parameter(narrow.proj.weight[:, width:])
    silent = copy.deepcopy(wide)
    x = rows(seed).repeat(1, 2)[None]
    with torch.no_grad():
        silent.proj.weight[:, :width] = 0.0
        torch.testing.assert_close(expected_of(wide, narrow, (), (x,)).outputs[0], silent(x))
