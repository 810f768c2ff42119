"""Activations that cut off hide nothing behind a grouped convolution, which may have no norm (or has it folded in)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.cut_checks import halved


class Block(nn.Module):
    """x + narrow(grouped(wide(x))) on maps [B, 8, H, W], without norms."""

    def __init__(self, hidden: int, groups: int, activation: type[nn.Module], transposed: bool) -> None:
        super().__init__()
        kind: type[nn.Conv2d] | type[nn.ConvTranspose2d] = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.wide, self.narrow = nn.Conv2d(8, hidden, 1), nn.Conv2d(hidden, 8, 1)
        self.grouped, self.activation = kind(hidden, hidden, 3, padding=1, groups=groups), activation()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(self.activation(self.grouped(self.activation(self.wide(x)))))


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize(
    ("hidden", "groups", "activation"),
    [(24, 24, nn.ReLU), (24, 24, nn.ReLU6), (32, 4, nn.ReLU), (16, 2, nn.ReLU6), (24, 24, nn.Hardswish)],
)
def test_channels_are_found_and_cut(
    hidden: int, groups: int, activation: type[nn.Module], transposed: bool, tmp_path: Path
) -> None:
    """A change of a channel made sums fall below zero, where no later layer saw it, and the layer was refused."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(hidden, groups, activation, transposed))
    net.extend([Block(hidden, groups, activation, transposed), nn.Flatten(), nn.Linear(8 * 9, 3)])
    for block in (net[1], net[2]):
        nn.init.constant_(block.grouped.bias, -0.5)  # most sums are below zero
    found = halved(net.eval(), (torch.randn(1, 3, 3, 3),), (torch.randn(2, 3, 3, 3),), tmp_path)
    named = {group.name: group.num_units for group in found.groups}
    assert {"1.wide": groups, "2.wide": groups}.items() <= named.items()
