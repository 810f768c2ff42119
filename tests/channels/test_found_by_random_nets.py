"""What random nets failed on or were cut wrong by, beside norms and attributes; each as a small net of its own.

The cuts are compared with the reference of the random nets, which knows nothing of groups, slots and proofs.
"""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.cut_checks import found_in, sizes
from tests.helpers.small_cuts import TOKENS, halved, made
from toolkit.base.errors import StageError
from toolkit.channels.cut import cut
from toolkit.channels.find import half_of
from toolkit.channels.groups import ChannelGroup, Slot
from toolkit.channels.proof import check_cut


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
