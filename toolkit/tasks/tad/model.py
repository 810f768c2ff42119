"""Holds the detector for temporal action detection: patch embedding, pre-norm transformer blocks, anchor-free head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class DetectorConfig:
    """Holds the sizes of the detector.

    num_tokens: tokens in a window.
    patch: samples in a token.
    dim: channels of the residual stream.
    reach: the largest distance, in tokens, from a token to a boundary of its segment.
    """

    num_channels: int
    num_classes: int
    num_tokens: int = 192
    patch: int = 20
    dim: int = 64
    num_blocks: int = 12
    num_heads: int = 4
    mlp_hidden: int = 256
    reach: int = 64


class Attention(nn.Module):
    """Computes multi-head self-attention; `scale` stays that of the trained width when head dimensions are pruned."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the attention of tokens: [B, T, C] -> [B, T, C]."""
        q, k, v = (part(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Applies two linear layers with a GELU between them to every token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output for each token: [B, T, C] -> [B, T, C]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Is a pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, num_heads: int, mlp_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the stream behind the block: [B, T, C] -> [B, T, C]."""
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class Head(nn.Module):
    """Predicts for each token class logits, and the distances to the start and the end of the segment that covers it.

    A distance is the mean of a distribution over `reach` bins. Its logits are the sum of two scores: how much the token
    in the bin looks like a boundary, and how much this token expects its boundary there (the Trident head of TriDet,
    Shi et al., CVPR 2023, eq. 3-5).
    """

    bins: Tensor

    def __init__(self, dim: int, num_classes: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.norm = nn.LayerNorm(dim)
        self.class_conv = nn.Conv1d(dim, dim, 3, padding=1)
        self.class_out = nn.Conv1d(dim, num_classes, 3, padding=1)
        self.segment_conv = nn.Conv1d(dim, dim, 3, padding=1)
        self.boundary_out = nn.Conv1d(dim, 2, 3, padding=1)
        self.offset_out = nn.Conv1d(dim, 2 * reach, 1)
        self.register_buffer("bins", torch.arange(reach, dtype=torch.float32), persistent=False)
        nn.init.constant_(self.class_out.bias, -4.0)  # type: ignore[arg-type]  # rare positives: start near 0.02

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits [B, T, classes] and distances [B, T, 2] in tokens, of tokens [B, T, C]."""
        x = self.norm(x).transpose(1, 2)
        logits = self.class_out(F.gelu(self.class_conv(x)))
        features = F.gelu(self.segment_conv(x))
        start, end = self.boundary_out(features).unbind(1)
        to_start, to_end = self.offset_out(features).transpose(1, 2).chunk(2, dim=-1)
        behind = F.pad(start, (self.reach - 1, 0)).unfold(-1, self.reach, 1).flip(-1)
        ahead = F.pad(end, (0, self.reach - 1)).unfold(-1, self.reach, 1)
        distances = [self._mean_bin(behind + to_start), self._mean_bin(ahead + to_end)]
        return logits.transpose(1, 2), torch.stack(distances, dim=-1)

    def _mean_bin(self, scores: Tensor) -> Tensor:
        return (scores.softmax(-1) * self.bins).sum(-1).clamp(min=1e-3)


class TransformerDetector(nn.Module):
    """Detects actions in windows of signals: embeds patches as tokens, and applies the blocks and the head."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        dim, patch = config.dim, config.patch
        self.embed = nn.Conv1d(config.num_channels, dim, 2 * patch, stride=patch, padding=patch // 2)
        self.position = nn.Parameter(torch.empty(config.num_tokens, dim))
        self.blocks = nn.ModuleList(Block(dim, config.num_heads, config.mlp_hidden) for _ in range(config.num_blocks))
        self.head = Head(dim, config.num_classes, config.reach)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Returns class logits [B, T, classes] and positive distances [B, T, 2] in tokens.

        signal: [B, channels, patch * num_tokens].
        """
        x = self.embed(signal).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        logits, distances = self.head(x)
        return logits, distances
