"""Parts of the search that only some models need: scales of zero, and trial cuts without a pattern."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.cut_checks import halved
from toolkit.channels.find import half_of
from toolkit.channels.groups import ChannelGroup, Slot


class Scaled(nn.Module):
    """x + scale * f(x), whose scale starts at zero, as in ReZero, LayerScale and adaLN-Zero."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(8, 12), nn.Linear(12, 8), nn.Parameter(torch.zeros(sizes))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.b(torch.relu(self.a(x)))


@pytest.mark.parametrize("sizes", [(1,), (8,)], ids=["one scale", "a scale per channel"])
def test_what_a_scale_of_zero_hides_is_found_and_cut(sizes: tuple[int, ...], tmp_path: Path) -> None:
    """Without numbers in the place of zeros, the stream would seem to be written by the first layer alone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), Scaled(sizes), Scaled(sizes), nn.Linear(8, 3)).eval()
    found = halved(net, (torch.randn(1, 5),), (torch.randn(3, 5),), tmp_path)
    groups = {group.name: group for group in found.groups}
    assert groups.keys() == {"0", "1.a", "2.a"}
    assert {"0", "1.b", "2.b"} <= {slot.module for slot in groups["0"].slots if slot.role == "out"}
    assert all(not bool(part.any()) for name, part in net.named_parameters() if name.endswith("scale"))


@pytest.mark.parametrize("count", [8, 16, 32, 48, 64])
def test_a_trial_cut_follows_no_pattern(count: int) -> None:
    """Code that takes every second channel, or halves that it exchanges, would pass with a regular half."""
    units = tuple((unit,) for unit in range(count))
    group = ChannelGroup("x", "mlp", (Slot("x", "out", units),), count)
    kept = half_of(group).units
    assert len(kept) == count // 2
    assert len({later - earlier for earlier, later in itertools.pairwise(kept)}) > 1
    assert {(unit + count // 2) % count for unit in kept} != set(kept)
    assert {count - 1 - unit for unit in kept} != set(kept)
