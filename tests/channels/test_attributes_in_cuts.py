"""Attributes that follow a cut, and those that stay: random nets had the wrong ones changed.

The cuts are compared with the reference of the random nets, which knows nothing of groups, slots and proofs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.helpers.small_cuts import TOKENS, Attention, halved


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
