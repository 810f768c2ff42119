"""More blocks for tokens [B, T, C]: one layer for attention and MLP, gates, merged patches, unlike heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random_nets.parts import Draw, named_activation


class OneLayer(nn.Module):
    """Queries, keys, values and the MLP's hidden units from one layer, and one layer that reads them all."""

    element = "attention and mlp in one layer"

    def __init__(self, draw: Draw, width: int, length: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, hidden = 2, draw.pick((2, 4)), 8
        self.inner = self.num_heads * self.head_dim
        self.sizes = [self.inner] * 3 + [hidden]
        self.norm, self.into, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, sum(self.sizes)),
            nn.Linear(self.inner + 8, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        *parts, hidden = self.into(self.norm(x)).split(self.sizes, -1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(torch.cat((mixed, F.gelu(hidden)), -1))

    def without(self, x: Tensor) -> Tensor:
        return x


class Unlike(nn.Module):
    """Heads whose values are as wide as queries and keys or not, on [B, T, H, D], with a gate behind the sum."""

    element = "gated attention with values of their own width"

    def __init__(self, draw: Draw, width: int, length: int) -> None:
        super().__init__()
        self.heads, self.key_dim, self.value_dim = draw.pick((2, 3, 4)), draw.pick((2, 3)), draw.pick((2, 4))
        self.norm, self.q = nn.LayerNorm(width), nn.Linear(width, self.heads * self.key_dim)
        self.k, self.v = nn.Linear(width, self.heads * self.key_dim), nn.Linear(width, self.heads * self.value_dim)
        self.gate = nn.Linear(width, self.heads * self.value_dim) if draw.chance(0.6) else None
        self.out = nn.Linear(self.heads * self.value_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k = (layer(y).unflatten(-1, (-1, self.key_dim)) for layer in (self.q, self.k))
        v = self.v(y).unflatten(-1, (-1, self.value_dim))
        weights = (torch.einsum("bthd,bshd->bhts", q, k) * self.key_dim**-0.5).softmax(-1)
        mixed = torch.einsum("bhts,bshd->bthd", weights, v).flatten(2)
        return x + self.out(mixed if self.gate is None else mixed * self.gate(y).sigmoid())

    def without(self, x: Tensor) -> Tensor:
        return x


class Linear(nn.Module):
    """Attention without a softmax: keys and values first, as in linear transformers."""

    element = "linear attention"

    def __init__(self, draw: Draw, width: int, length: int) -> None:
        super().__init__()
        self.num_heads, inner = 2, draw.pick((4, 8))
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return x + self.out((F.elu(q) @ (F.elu(k).mT @ v)).transpose(1, 2).flatten(2))

    def without(self, x: Tensor) -> Tensor:
        return x


class Convolution(nn.Module):
    """A Conformer's: pointwise convolution, gate, depthwise convolution, norm, pointwise convolution."""

    element = "conformer's convolution"

    def __init__(self, draw: Draw, width: int, length: int) -> None:
        super().__init__()
        hidden = draw.pick((6, 8))
        self.norm, self.both = nn.LayerNorm(width), nn.Conv1d(width, 2 * hidden, 1)
        self.depth, self.middle = nn.Conv1d(hidden, hidden, 3, padding=1, groups=hidden), nn.BatchNorm1d(hidden)
        self.last, self.act = nn.Conv1d(hidden, width, 1), named_activation(draw)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.both(self.norm(x).mT), 1)
        return x + self.last(self.act(self.middle(self.depth(y)))).mT

    def without(self, x: Tensor) -> Tensor:
        return x


class Merged(nn.Module):
    """Pairs of tokens side by side, and a layer that reads both, as a Swin merges patches."""

    element = "merged patches"

    def __init__(self, draw: Draw, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = (
            nn.LayerNorm(2 * width) if draw.chance(0.5) else nn.Identity(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        even = x[:, : x.shape[1] // 2 * 2]
        return self.reduce(self.norm(torch.cat((even[:, ::2], even[:, 1::2]), -1)))


MORE_BLOCKS = (OneLayer, Unlike, Linear, Convolution)
