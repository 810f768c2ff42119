"""A detector of the kind that reads a sequence at several rates: blocks return (stream, mask), windows are local."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.tiny_task import TinyTask
from toolkit.tasks.task import Batch

WIDTH, INPUTS, STEPS, CLASSES = 16, 5, 16, 3


class MaskedConv(nn.Module):
    """A convolution of [B, C, T] whose outputs are zero where the mask [B, 1, T] is; returns both, at its own rate."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        there = mask.to(x.dtype)
        if self.stride > 1:
            there = F.interpolate(there, scale_factor=1 / self.stride, mode="nearest")
        return self.conv(x) * there, there.bool()


class ChannelNorm(nn.Module):
    """LayerNorm over the second dimension."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, width, 1)), nn.Parameter(torch.zeros(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        return x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt() * self.weight + self.bias


class LocalAttention(nn.Module):
    """Every position looks at 3 neighbours on each side; q, k, v are pointwise, each behind a depthwise convolution.

    reads_width: the forward code takes the width of the stream for that of all heads, which then have to stay.
    """

    def __init__(self, heads: int, stride: int, reads_width: bool) -> None:
        super().__init__()
        self.n_head, self.inner, self.reads_width, self.reach = heads, WIDTH, reads_width, 3
        self.hidden = -math.inf  # what scores of hidden places become; no gradient comes through a row of these alone
        self.convs = nn.ModuleList(MaskedConv(WIDTH, WIDTH, 3, stride, groups=WIDTH) for _ in range(3))
        self.norms = nn.ModuleList(ChannelNorm(WIDTH) for _ in range(3))
        self.query, self.key, self.value = (nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(3))
        self.proj = nn.Conv1d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        parts = [conv(x, mask) for conv in self.convs]
        mask = parts[0][1]
        made = (layer(norm(part)) for layer, norm, (part, _) in zip(self._layers(), self.norms, parts, strict=True))
        q, k, v = (part.unflatten(1, (self.n_head, -1)) for part in made)  # [B, heads, C of each, T]
        k, v = (F.pad(part, (self.reach, self.reach)).unfold(-1, 2 * self.reach + 1, 1) for part in (k, v))
        there = F.pad(mask, (self.reach, self.reach)).unfold(-1, 2 * self.reach + 1, 1)  # [B, 1, T, window]
        weights = (q[..., None] * k).sum(2).masked_fill(~there, self.hidden).softmax(-1)  # NaN where nothing is there
        mixed = (weights[:, :, None] * v).sum(-1)
        mixed = mixed.reshape(len(x), x.shape[1] if self.reads_width else self.inner, -1)
        return torch.where(mask, self.proj(mixed), 0.0), mask

    def _layers(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.query, self.key, self.value


class DetectorBlock(nn.Module):
    def __init__(self, stride: int = 1, reads_width: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(WIDTH), ChannelNorm(WIDTH)
        self.attn = LocalAttention(4, stride, reads_width)
        self.skip = nn.Identity() if stride == 1 else nn.MaxPool1d(3, stride, 1)
        self.mlp = nn.Sequential(nn.Conv1d(WIDTH, 32, 1), nn.GELU(), nn.Conv1d(32, WIDTH, 1))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        added, new_mask = self.attn(self.norm1(x), mask)
        x = self.skip(x) * new_mask + added
        return x + self.mlp(self.norm2(x)) * new_mask, new_mask


class DetectorNet(nn.Module):
    """[B, INPUTS, T] and a mask [B, 1, T] -> logits [B, T + T/2 + T/4, CLASSES] of one head over all levels."""

    def __init__(self, reads_width: bool = False) -> None:
        super().__init__()
        self.embed = MaskedConv(INPUTS, WIDTH, 3)
        self.stem = nn.ModuleList(DetectorBlock(reads_width=reads_width) for _ in range(3))
        self.branch = nn.ModuleList(DetectorBlock(2, reads_width) for _ in range(2))
        self.head, self.logits = MaskedConv(WIDTH, WIDTH, 3), MaskedConv(WIDTH, CLASSES, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x, mask = self.embed(x, mask)
        for block in self.stem:
            x, mask = block(x, mask)
        levels = [(x, mask)]
        for block in self.branch:
            levels.append(block(*levels[-1]))
        found = [self.logits(F.relu(self.head(*level)[0]), level[1])[0] for level in levels]
        return torch.cat(found, -1).transpose(1, 2)


def detector_inputs(batch_size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random signals; every second example ends early."""
    signals = torch.randn(batch_size, INPUTS, STEPS, generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([STEPS if row % 2 else 3 * STEPS // 4 for row in range(batch_size)])
    return signals, (torch.arange(STEPS) < lengths[:, None])[:, None]


class DetectorTask(TinyTask):
    """The detector on made-up signals, untrained."""

    name = "detector"
    protected = ("logits",)

    def __init__(self) -> None:
        super().__init__(train_steps=0)

    def build_model(self) -> nn.Module:
        return DetectorNet()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        return detector_inputs(batch_size)

    def batches(self, split: Any, batch_size: int, *, limit: int | None = None) -> Any:
        end = self.examples if limit is None else min(limit, self.examples)
        for first in range(0, end, batch_size):
            yield self._batch(min(batch_size, end - first), first + 1000 * len(split))

    def _batch(self, batch_size: int, seed: int) -> Batch:
        inputs = detector_inputs(batch_size, seed)
        level = inputs[0][:, 0]
        rates = [level, level[:, ::2], level[:, ::4]]
        return Batch(inputs, (torch.cat(rates, 1) > 0).long())
