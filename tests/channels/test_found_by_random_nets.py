"""What random nets were cut wrong by, failed on or were refused for without need; each as a small net of its own.

The cuts are compared with the reference of the random nets, which knows nothing of groups, slots and proofs.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.cut_checks import found_in, sizes
from tests.random_nets.attention import turned
from tests.random_nets.parts import HandRMS, filled
from tests.random_nets.reference import expected_of
from toolkit.base.errors import StageError
from toolkit.channels.cut import KeptUnits, cut
from toolkit.channels.find import half_of
from toolkit.channels.groups import ChannelGroup, Slot, Structure
from toolkit.channels.proof import check_cut

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


class Parts(nn.Module):
    """Splits by an attribute that must follow a cut, and holds others of that size that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.image_size, self.classes = [8, 8], (3, 8), 8
        self.first, self.one, self.other = nn.Linear(6, 16), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.first(x).split(self.sizes, -1)
        return self.one(one.relu()) + self.other(other)


def test_numbers_that_nothing_reads_keep_their_values() -> None:
    """The size of the pictures was halved with the channels, as were other numbers that happened to be alike."""
    _, narrow = halved(Parts(), TOKENS)
    assert (narrow.sizes, narrow.image_size, narrow.classes) == ([4, 4], (3, 8), 8)


def test_the_width_of_all_heads_is_told_of_a_cut_that_no_pass_reads_it_in() -> None:
    """Other code of the attention may, such as that for cached keys: its name says what it is."""
    net = Attention()
    net.inner = 16
    _, narrow = halved(net, TOKENS)
    assert (narrow.num_heads, narrow.inner, narrow.head_dim) == (2, 8, 4)


class SharedKeys(nn.Module):
    """Two key heads for four heads of two channels: a unit is a key head, and `head_dim` is not its width."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = 4, 2, 2
        self.q, self.k, self.v, self.out = (nn.Linear(6, 8), nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        heads = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        layers = zip((self.q, self.k, self.v), heads, strict=True)
        q, k, v = (layer(x).unflatten(-1, (count, -1)).transpose(1, 2) for layer, count in layers)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


def test_the_width_of_a_head_stays_where_heads_share_keys() -> None:
    """It was taken for the width of all heads, and halved with their number."""
    found, narrow = halved(SharedKeys(), TOKENS)
    assert (narrow.num_heads, narrow.num_kv_heads, narrow.head_dim) == (2, 1, 2)
    assert not found.groups[0].dims_are_free  # of two query heads for one key head


class UnlikeValues(nn.Module):
    """Values of four channels for each of two heads, queries and keys of three."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.key_dim, self.value_dim = 2, 3, 4
        self.q, self.k, self.v, self.out = (nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 8), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        q, k = (layer(x).unflatten(-1, (-1, self.key_dim)) for layer in (self.q, self.k))
        v = self.v(x).unflatten(-1, (-1, self.value_dim))
        weights = torch.einsum("bthd,bshd->bhts", q, k).softmax(-1)
        return self.out(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2))


def test_the_width_of_one_value_is_not_that_of_all() -> None:
    """One head of four channels computes what two heads of two do that share its weights, so that both fit."""
    _, narrow = halved(UnlikeValues(), TOKENS)
    assert (narrow.heads, narrow.key_dim, narrow.value_dim) == (1, 3, 4)


class Padded(nn.Module):
    """Half of an attribute's zeros on either side: any even number of channels more goes, and no odd one."""

    def __init__(self) -> None:
        super().__init__()
        self.more = 4
        self.stem, self.wide, self.head = nn.Conv1d(6, 12, 1), nn.Conv1d(12, 16, 1), nn.Conv1d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x.mT)
        half = self.more // 2
        return self.head((self.wide(y) + nn.functional.pad(y, (0, 0, half, half))).relu())


def test_a_cut_that_half_the_channels_pass_and_others_do_not_is_refused() -> None:
    net, inputs = made(Padded(), TOKENS)
    found = found_in(net, inputs)
    assert "its forward code does not run with the narrower layers" in found.refused["stem"]


class Picky(nn.Module):
    """A scale that divides by the number of eights among its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * (8 // (x.shape[-1] // 8))


def test_a_leaf_that_fails_when_it_is_narrower_is_a_reason_and_no_traceback() -> None:
    net, inputs = made(nn.Sequential(nn.Linear(6, 8), Picky(), nn.Linear(8, 3)), TOKENS)
    found = found_in(net, inputs)
    assert "integer division or modulo by zero" in found.refused["0"]
    places = tuple((unit,) for unit in range(8))
    slots = (Slot("0", "out", places), Slot("1", "through", places, 2), Slot("2", "in", places))
    half = half_of(ChannelGroup("0", "mlp", slots, 8))
    narrow = copy.deepcopy(net)
    cut(narrow, [half])
    with pytest.raises(StageError, match="does not run with the narrower layers: integer division"):
        check_cut(net, narrow, half.parts(), inputs)


class HalfGoesBy(nn.Module):
    """A half that goes by, and a half with a norm without weights; two attributes say how much of each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.work, self.last = nn.Linear(6, 8), nn.Linear(4, 4), nn.Linear(8, 2)
        self.norm, self.by, self.worked = nn.LayerNorm(4, elementwise_affine=False), 4, 4

    def forward(self, x: Tensor) -> Tensor:
        by, worked = self.first(x).split((self.by, self.worked), -1)
        return self.last(torch.cat((by, self.norm(self.work(worked))), -1))


def test_a_norm_beside_attributes_that_follow_is_cut_once() -> None:
    """The norm's number of channels was halved with the attributes too, a second time."""
    _, narrow = halved(HalfGoesBy(), TOKENS)
    assert (narrow.by, narrow.worked, narrow.norm.normalized_shape, narrow.work.out_features) == (2, 2, (2,), 2)


class Warning8(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 8:
            warnings.warn("not 8 channels", stacklevel=1)
        return x


def test_trials_warn_nobody() -> None:
    net, inputs = made(nn.Sequential(nn.Linear(6, 8), Warning8(), nn.Linear(8, 3)), TOKENS)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found_in(net, inputs)
    assert not said


class FirstToken(nn.Module):
    """A class token before the others, one block that mixes tokens, and logits of the class token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Linear(6, 8), nn.Parameter(torch.zeros(1, 1, 8))
        self.mix, self.out, self.logits = nn.Linear(8, 10), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.token.expand(len(x), -1, -1), self.embed(x)), 1)
        x = x + self.out(self.mix(x).relu().mean(1, keepdim=True).tanh())
        return self.logits(x[:, 0])


def test_streams_that_meet_where_nothing_reads_them_are_one() -> None:
    """Each had a group, which could be cut to other channels than the other's: only the class token has both."""
    found, narrow = halved(FirstToken(), TOKENS)
    assert sizes(found) == {"mix": 10, "embed": 8}
    assert narrow.token.shape == (1, 1, 4)
