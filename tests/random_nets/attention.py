"""Attention as people write it: fused or separate layers, shared key heads, rotary positions, tables, ways to mix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tests.random_nets.parts import Draw


class Attention(nn.Module):
    """[B, T, width] -> [B, T, width]; keys and values come from `context` where it is given."""

    def __init__(self, draw: Draw, width: int, length: int | None = None, crosses: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim = draw.pick(((2, 4), (4, 2), (4, 4), (4, 3), (3, 4), (2, 3)))
        shared = [count for count in (1, 2, 2) if self.num_heads % count == 0]
        self.num_kv_heads = self.num_heads if draw.chance(0.4) else draw.pick(shared)
        self.element = self._kind(crosses)
        self.inner, inner_kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        bias = draw.chance(0.7)
        self.fused = "nothing" if crosses else draw.pick(("nothing", "all", "keys and values"))
        if self.fused == "all":
            self.qkv = nn.Linear(width, self.inner + 2 * inner_kv, bias)
        else:
            self.q = nn.Linear(width, self.inner, bias)
            if self.fused == "nothing":
                self.k, self.v = nn.Linear(width, inner_kv, bias), nn.Linear(width, inner_kv, bias)
            else:
                self.kv = nn.Linear(width, 2 * inner_kv, bias)
        self.proj = nn.Linear(self.inner, width)
        self.sharing = draw.pick(("repeat", "expand", "operator"))
        self.mixing = draw.pick(("operator", "product", "einsum"))
        self.reading = draw.pick(("counts", "dims", "both"))
        self.merging = draw.pick(("flatten", "inner", "shape"))
        self.scale = self.head_dim**-0.5
        self.is_causal = length is not None and draw.chance(0.3)
        self.table = nn.Parameter(torch.zeros(self.num_heads, length, length)) if length and draw.chance(0.3) else None
        self.turns = self.head_dim % 2 == 0 and not crosses and draw.chance(0.25)
        normed = draw.chance(0.2)
        self.norm_q, self.norm_k = ((nn.RMSNorm(self.head_dim) if normed else nn.Identity()) for _ in range(2))

    def _kind(self, crosses: bool) -> str:
        if crosses:
            return "attention to the other input"
        if self.num_kv_heads == self.num_heads:
            return "attention"
        return "multi-query attention" if self.num_kv_heads == 1 else "grouped-query attention"

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        q, k, v = self._layers(x, x if context is None else context)
        q, k = self.norm_q(q), self.norm_k(k)
        if self.turns:
            q, k = turned(q), turned(k)
        mixed = self._mixed(q, k, v).transpose(1, 2)
        if self.merging == "flatten":
            return self.proj(mixed.flatten(2))
        batch, length = mixed.shape[:2]
        return self.proj(mixed.reshape(batch, length, self.inner if self.merging == "inner" else -1))

    def _layers(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads, kv_heads = self.num_heads, self.num_kv_heads
        if self.fused == "nothing":
            return (
                self._heads(self.q(x), heads),
                self._heads(self.k(context), kv_heads),
                self._heads(self.v(context), kv_heads),
            )
        if self.fused == "keys and values":
            k, v = self.kv(context).chunk(2, -1)
            return self._heads(self.q(x), heads), self._heads(k, kv_heads), self._heads(v, kv_heads)
        if heads == kv_heads:
            q, k, v = self.qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            return q, k, v
        both = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = both.split((heads, kv_heads, kv_heads), 1)
        return q, k, v

    def _heads(self, x: Tensor, count: int) -> Tensor:
        """[B, T, heads * dim] -> [B, heads, T, dim]"""
        if self.reading == "both":
            return x.view(x.shape[0], x.shape[1], count, self.head_dim).transpose(1, 2)
        return x.unflatten(-1, (count, -1) if self.reading == "counts" else (-1, self.head_dim)).transpose(1, 2)

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        is_grouped, is_operator = self.num_kv_heads != self.num_heads, self.mixing == "operator"
        by_operator = is_grouped and is_operator and self.sharing == "operator"
        if is_grouped and not by_operator:
            k, v = (self._shared(part) for part in (k, v))
        if is_operator:
            return scaled_dot_product_attention(
                q, k, v, attn_mask=self.table, is_causal=self.is_causal and self.table is None, enable_gqa=by_operator
            )
        weights = q @ k.mT if self.mixing == "product" else torch.einsum("bhid,bhjd->bhij", q, k)
        weights = weights * self.scale
        if self.table is not None:
            weights = weights + self.table
        if self.is_causal:
            weights = weights.masked_fill(torch.ones(q.shape[2], q.shape[2]).triu(1).bool(), -torch.inf)
        weights = weights.softmax(-1)
        return weights @ v if self.mixing == "product" else torch.einsum("bhij,bhjd->bhid", weights, v)

    def _shared(self, x: Tensor) -> Tensor:
        times = self.num_heads // self.num_kv_heads
        if self.sharing == "expand":
            batch, heads, length, dim = x.shape
            return x[:, :, None].expand(batch, heads, times, length, dim).reshape(batch, heads * times, length, dim)
        return x.repeat_interleave(times, 1)


def turned(x: Tensor) -> Tensor:
    """Rotary positions: channels in pairs, the halves of a head apart."""
    angles = torch.arange(x.shape[2])[:, None] / 10.0 ** torch.arange(x.shape[3] // 2)
    first, second = x.chunk(2, -1)
    cosine, sine = angles.cos().double(), angles.sin().double()
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)
