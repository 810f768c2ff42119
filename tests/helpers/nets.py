"""Small nets, one for each way in which channels hang together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bottlenecks(nn.Module):
    """A stem, two residual blocks of convolutions with BatchNorm, a classifier: [B, 3, 12, 12] -> [B, 5]."""

    def __init__(self, groups: int = 1, squeeze: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.ModuleList(Bottleneck(groups, squeeze) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Bottleneck(nn.Module):
    def __init__(self, groups: int, squeeze: bool) -> None:
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.middle, self.bn2 = nn.Conv2d(24, 24, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(24)
        self.gate = nn.Sequential(nn.Linear(24, 6), nn.ReLU(), nn.Linear(6, 24), nn.Sigmoid()) if squeeze else None
        self.project, self.bn3 = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.expand(x)))
        y = F.relu(self.bn2(self.middle(y)))
        if self.gate is not None:
            y = y * self.gate(y.mean((2, 3)))[:, :, None, None]
        return x + self.bn3(self.project(y))


class FusedAttentionNet(nn.Module):
    """q, k, v in one matrix, a table of one number per head and pair of positions, a gated MLP: [B, 6, 4] -> [B, 3]."""

    def __init__(self, reads_own_width: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 12)
        self.position = nn.Parameter(torch.randn(6, 12))
        self.blocks = nn.ModuleList(FusedBlock(reads_own_width) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class FusedBlock(nn.Module):
    def __init__(self, reads_own_width: bool) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(12), FusedAttention(reads_own_width), nn.LayerNorm(12)
        self.gated, self.out = nn.Linear(12, 32), nn.Linear(16, 12)
        self.scale = nn.Parameter(torch.full((12,), 1e-5))  # what goes wrong behind it can hardly be seen

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        gate, value = self.gated(self.norm2(x)).chunk(2, dim=-1)
        return x + self.scale * self.out(F.silu(gate) * value)


class FusedAttention(nn.Module):
    """With `reads_own_width` the forward code takes the width of all heads for that of the stream: heads must stay."""

    def __init__(self, reads_own_width: bool) -> None:
        super().__init__()
        self.num_heads, self.attn_dim, self.reads_own_width = 4, 12, reads_own_width
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)
        self.table = nn.Parameter(torch.randn(4, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) + self.table).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width if self.reads_own_width else self.attn_dim)
        return self.proj(mixed)
