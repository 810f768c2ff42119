"""Small nets that are cut in half and compared with the reference of the random nets.

The reference knows nothing of groups, slots and proofs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tests.helpers.cut_checks import found_in
from tests.random_nets.attention import turned
from tests.random_nets.parts import filled
from tests.random_nets.reference import expected_of
from toolkit.channels.cut import KeptUnits, cut
from toolkit.channels.find import half_of
from toolkit.channels.groups import Structure

IMAGE, TOKENS = (2, 3, 6, 6), (2, 5, 6)


def made(net: nn.Module, shape: Sequence[int], seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return filled(net, seed), (torch.randn(*shape, generator=generator, dtype=torch.float64),)


def assert_cut_is_right(net: nn.Module, choices: Sequence[KeptUnits], inputs: tuple[Tensor, ...]) -> nn.Module:
    narrow = copy.deepcopy(net)
    cut(narrow, choices)
    (expected,) = expected_of(net, narrow, (), inputs).outputs
    with torch.no_grad():
        torch.testing.assert_close(narrow(*inputs), expected)
    return narrow


def halved(net: nn.Module, shape: Sequence[int]) -> tuple[Structure, nn.Module]:
    net, inputs = made(net, shape)
    found = found_in(net, inputs)
    assert found.groups
    return found, assert_cut_is_right(net, [half_of(group) for group in found.groups], inputs)


class Attention(nn.Module):
    """As many heads as each has channels; queries and keys are normed, or turned with their places."""

    def __init__(self, norm: Callable[[int], nn.Module] = lambda _: nn.Identity(), turns: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.turns = 4, 4, turns
        self.q, self.k, self.v, self.out = (nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3))
        self.norm_q, self.norm_k = norm(4), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = self.norm_q(q), self.norm_k(k)
        if self.turns:
            q, k = turned(q), turned(k)
        return self.out(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))
