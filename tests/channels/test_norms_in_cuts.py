"""Norms in cuts: random nets with them were cut wrong or were refused for no good reason.

The cuts are compared with the reference of the random nets, which knows nothing of groups, slots and proofs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from tests.helpers.cut_checks import found_in, sizes
from tests.helpers.small_cuts import IMAGE, TOKENS, Attention, halved, made
from tests.random_nets.parts import HandRMS
from toolkit.channels.cut import KeptUnits, cut
from toolkit.channels.groups import ChannelGroup


def between_convolutions(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.SiLU(), nn.Conv2d(8, 4, 1))


OF_MAPS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "one group": (lambda: nn.GroupNorm(1, 8), 8),
    "one group, no weights": (lambda: nn.GroupNorm(1, 8, affine=False), 8),
    "two groups, no weights": (lambda: nn.GroupNorm(2, 8, affine=False), 2),
    "instances, no weights": (lambda: nn.InstanceNorm2d(8), 8),
    "batches, no weights": (lambda: nn.BatchNorm2d(8, affine=False), 8),
}


@pytest.mark.parametrize("case", OF_MAPS)
def test_norms_of_maps_without_weights_or_with_one_group(case: str) -> None:
    """A GroupNorm of one group ended in a division by zero; a narrower InstanceNorm warned at every pass."""
    build, units = OF_MAPS[case]
    found, narrow = halved(between_convolutions(build()), IMAGE)
    assert sizes(found) == {"0": units}
    norm = narrow[1]
    assert getattr(norm, "num_groups", 1) == 1
    assert getattr(norm, "num_features", 4) == getattr(norm, "num_channels", 4) == 4


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_norms_of_tokens_without_weights(kind: type[nn.Module]) -> None:
    net = nn.Sequential(nn.Linear(6, 8), kind(8, elementwise_affine=False), nn.Linear(8, 3))
    found, narrow = halved(net, TOKENS)
    assert sizes(found) == {"0": 8} and narrow[1].normalized_shape == (4,)


class Gated(nn.Module):
    """A map times a map of one channel that is made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 1, 3, padding=1), nn.Conv2d(6, 2, 1)
        self.norm = nn.GroupNorm(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        return self.last(y * self.gate(y).sigmoid())


def test_whole_groups_of_a_norm_go_where_a_gate_has_one_channel() -> None:
    found, narrow = halved(Gated(), IMAGE)
    assert [(group.name, group.kind, group.num_units) for group in found.groups] == [("first", "conv", 3)]
    assert (narrow.norm.num_groups, narrow.norm.num_channels) == (2, 4)


class TwoNorms(nn.Module):
    """Groups of 2 channels and of 3 share one stream, through which a gate of one channel reaches everything."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 1, 1), nn.Conv2d(6, 2, 1)
        self.twos, self.threes = nn.GroupNorm(3, 6), nn.GroupNorm(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.twos(self.first(x))
        return self.last(self.threes(y) * self.gate(y).sigmoid())


def test_groups_of_a_norm_are_never_cut_in_pieces() -> None:
    """What is left of two groups would be normed as one, and the proof takes the narrow norm's word for it."""
    net, inputs = made(TwoNorms(), IMAGE)
    assert not found_in(net, inputs).groups
    simple, inputs = made(between_convolutions(nn.GroupNorm(2, 8)), IMAGE)
    (group,) = found_in(simple, inputs).groups
    slots = tuple(
        type(slot)(slot.module, slot.role, tuple((one,) for unit in slot.places for one in unit), slot.dim)
        for slot in group.slots
    )
    single = ChannelGroup(group.name, group.kind, slots, 8)
    with pytest.raises(ValueError, match="a norm in groups loses whole groups only"):
        cut(simple, [KeptUnits(single, (0, 2, 4, 6))])


class Asked(nn.RMSNorm):
    """A norm that is told more than its input."""

    def forward(self, x: Tensor, how: str) -> Tensor:
        assert how == "as ever"
        return super().forward(x)


class TellingAttention(Attention):
    def __init__(self) -> None:
        super().__init__(Asked)

    def forward(self, x: Tensor) -> Tensor:
        v = self.v(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.out(self.norm_k(self.norm_q(v, "as ever"), "as ever").transpose(1, 2).flatten(2))


def test_a_norm_that_does_not_run_on_its_input_alone_is_no_traceback() -> None:
    net, inputs = made(TellingAttention(), TOKENS)
    found = found_in(net, inputs)
    assert "out" in found.refused and not found.groups


@pytest.mark.parametrize("norm", [nn.RMSNorm, nn.LayerNorm, HandRMS])
def test_norms_of_heads_where_there_are_as_many_heads_as_channels_of_each(norm: Callable[[int], nn.Module]) -> None:
    """The norm's weights were taken for those of the heads, so that no attention of such a net could be cut."""
    found, narrow = halved(Attention(norm), TOKENS)
    assert [(group.kind, group.num_units) for group in found.groups] == [("attention", 4)]
    assert narrow.norm_q.weight.shape == (4,)


@pytest.mark.parametrize("turns", [True, False])
def test_channels_of_heads_that_turn_are_not_free(turns: bool) -> None:
    """With every second channel the pairs stay pairs; with any others they do not."""
    net, inputs = made(Attention(turns=turns), TOKENS)
    (group,) = found_in(net, inputs).groups
    assert group.dims_are_free != turns
