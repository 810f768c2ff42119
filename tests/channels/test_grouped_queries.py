"""Attention whose heads share keys, turn with positions, are normed, or are made by other layers than nn.Linear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tests.helpers.cut_checks import found_in, halved, sizes

C, HEADS, DIM = 16, 8, 4


class Grouped(nn.Module):
    """8 query heads share `kv_heads` key heads; `sharing` is how a key head is handed to its query heads."""

    def __init__(self, kv_heads: int, sharing: str = "in a row", turns: bool = False, normed: bool = False) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.sharing, self.turns = HEADS, kv_heads, sharing, turns
        self.repeats = HEADS // kv_heads
        self.q, self.out = nn.Linear(C, HEADS * DIM), nn.Linear(HEADS * DIM, C)
        self.k, self.v = nn.Linear(C, kv_heads * DIM), nn.Linear(C, kv_heads * DIM)
        self.norm_q, self.norm_k = (nn.RMSNorm(DIM) if normed else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, DIM)).transpose(1, 2) for part in (self.q(x), self.k(x), self.v(x)))
        q, k = self.norm_q(q), self.norm_k(k)
        if self.turns:
            q, k = turned(q), turned(k)
        if self.sharing == "in a row":
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, 1) for part in (k, v))
        elif self.sharing == "in turns":
            k, v = (part.repeat(1, self.repeats, 1, 1) for part in (k, v))
        is_fused = self.sharing == "in the operator"
        mixed = scaled_dot_product_attention(q, k, v, enable_gqa=is_fused)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


def turned(x: Tensor) -> Tensor:
    """Rotary positions: channels in pairs, the halves of a head apart."""
    angles = torch.arange(x.shape[2])[:, None] / 10.0 ** torch.arange(DIM // 2)
    first, second = x.chunk(2, -1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)


def net_of(attention: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, C), attention(), attention(), nn.Linear(C, 3)).eval()


def inputs_of(seed: int) -> tuple[Tensor]:
    return (torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(seed)),)


KINDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "a key head for each query head": (lambda: Grouped(8), 8),
    "a key head for two": (lambda: Grouped(4), 4),
    "a key head for four": (lambda: Grouped(2), 2),
    "one key head for all": (lambda: Grouped(1), 8),
    "one key head for all, in turns": (lambda: Grouped(1, "in turns"), 8),
    "one key head for all, in the operator": (lambda: Grouped(1, "in the operator"), 8),
    "in turns": (lambda: Grouped(4, "in turns"), 4),
    "in the operator": (lambda: Grouped(2, "in the operator"), 2),
    "turned with positions": (lambda: Grouped(2, turns=True), 2),
    "one key head, turned and normed": (lambda: Grouped(1, turns=True, normed=True), 8),
    "normed": (lambda: Grouped(8, normed=True), 8),
}


@pytest.mark.parametrize("case", KINDS)
def test_query_heads_are_cut_with_their_key_heads(case: str, tmp_path: Path) -> None:
    build, units = KINDS[case]
    found = halved(net_of(build), inputs_of(0), inputs_of(1), tmp_path)
    assert sizes(found) == {"1": units, "2": units, "0": C}
    whole = {slot.module: slot.size for slot in found.groups[0].slots}
    assert whole["1.q"] == HEADS * DIM
    shared = {name: reason for name, reason in found.refused.items() if name.endswith((".k", ".v"))}
    assert shared == (
        {}
        if "1.k" in whole
        else {
            f"{at}.{one}": f"all heads of {at} share its channels"
            for at in "12"
            for one in ("k", "v")
            if f"1.{one}" not in whole
        }
    )


class Fused(nn.Module):
    """Queries, keys and values from one layer, in blocks of unlike size: q heads, then key heads, then value heads."""

    def __init__(self, kv_heads: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = HEADS, kv_heads
        self.qkv, self.out = nn.Linear(C, (HEADS + 2 * kv_heads) * DIM), nn.Linear(HEADS * DIM, C)

    def forward(self, x: Tensor) -> Tensor:
        counts = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        q, k, v = self.qkv(x).unflatten(-1, (-1, DIM)).transpose(1, 2).split(counts, 1)
        mixed = scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("kv_heads", "units"), [(8, 8), (4, 4), (2, 2), (1, 8)])
def test_one_layer_for_queries_keys_and_values(kv_heads: int, units: int, tmp_path: Path) -> None:
    net = net_of(lambda: Fused(kv_heads))
    found = halved(net, inputs_of(0), inputs_of(1), tmp_path)
    assert sizes(found) == {"1": units, "2": units, "0": C}


class OfConvolutions(nn.Module):
    """[B, C, T]: pointwise convolutions as queries, keys and values; heads are told by the shape alone."""

    def __init__(self, kv_heads: int = HEADS) -> None:
        super().__init__()
        self.q, self.out = nn.Conv1d(C, HEADS * DIM, 1), nn.Conv1d(HEADS * DIM, C, 1)
        self.k, self.v = (nn.Conv1d(C, kv_heads * DIM, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(1, (-1, DIM)).mT for layer in (self.q, self.k, self.v))
        return x + self.out(scaled_dot_product_attention(q, k, v, enable_gqa=True).mT.flatten(1, 2))


@pytest.mark.parametrize(("kv_heads", "units"), [(8, 8), (2, 2), (1, 8)])
def test_attention_by_convolutions(kv_heads: int, units: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(6, C, 3, padding=1), OfConvolutions(kv_heads), nn.Conv1d(C, 3, 1)).eval()
    inputs, fresh = (torch.randn(2, 6, 7),), (torch.randn(2, 6, 9),)
    assert sizes(halved(net, inputs, fresh, tmp_path)) == {"1": units, "0": C}


def test_one_head_is_not_cut_and_named() -> None:
    class OneHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            return x + self.out((q @ k.mT).softmax(-1) @ v)

    found = found_in(net_of(OneHead), inputs_of(0))
    assert not found.of_kind("attention")
    assert "its forward code does not run with the narrower layers" in found.refused["1.qkv"]


def test_values_of_one_head_are_channels_and_no_heads(tmp_path: Path) -> None:
    class OneHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(C, C) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.out((self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x))

    found = halved(net_of(OneHead), inputs_of(0), inputs_of(1), tmp_path)
    assert sizes(found) == {"1.v": C, "2.v": C, "0": C}
    assert {group.kind for group in found.groups} == {"mlp", "embedding"}
    assert found.refused["1.q"] == "all channels of 1.v share its channels"
