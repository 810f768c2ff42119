"""Blocks of transformers and mixers, and rows of channels, for streams [B, T, C] or [B, C]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random_nets.attention import Attention
from tests.random_nets.parts import NORMS, Draw, activation, named_activation, norm_of_tokens


class Mlp(nn.Module):
    element = "mlp"

    def __init__(self, draw: Draw, width: int) -> None:
        super().__init__()
        hidden = draw.pick((6, 8, 12))
        self.up, self.act, self.down = nn.Linear(width, hidden), activation(draw), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class GatedMlp(nn.Module):
    """Gate and value from one layer in two halves, or taking turns, or from two layers."""

    element = "gated mlp"

    def __init__(self, draw: Draw, width: int) -> None:
        super().__init__()
        hidden = draw.pick((6, 8))
        self.way, self.act = draw.pick(("chunk", "split", "turns", "glu", "apart")), named_activation(draw)
        if self.way == "apart":
            self.gate, self.value = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden)
        else:
            self.both, self.hidden = nn.Linear(width, 2 * hidden), hidden
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "apart":
            return self.down(self.act(self.gate(x)) * self.value(x))
        both = self.both(x)
        if self.way == "glu":
            return self.down(F.glu(both))
        if self.way == "turns":
            return self.down(self.act(both[..., ::2]) * both[..., 1::2])
        gate, value = both.chunk(2, -1) if self.way == "chunk" else both.split(self.hidden, -1)
        return self.down(self.act(gate) * value)


class ConvolvedMlp(nn.Module):
    """An MLP with a depthwise convolution over tokens between its layers."""

    element = "mlp with a depthwise convolution"

    def __init__(self, draw: Draw, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 8), nn.Linear(8, width)
        self.conv, self.act = nn.Conv1d(8, 8, 3, padding=1, groups=8), named_activation(draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.conv(self.up(x).mT).mT))


def mlp_of(draw: Draw, width: int, length: int | None) -> nn.Module:
    return draw.pick((Mlp, Mlp, GatedMlp) if length is None else (Mlp, GatedMlp, ConvolvedMlp))(draw, width)


class TokenBlock(nn.Module):
    """Attention and an MLP: with norms before or behind them, or both side by side; perhaps scaled."""

    def __init__(self, draw: Draw, width: int, length: int) -> None:
        super().__init__()
        kind = draw.pick(NORMS[2:5])
        self.order = draw.pick(("before", "before", "behind", "side by side"))
        self.norm1 = norm_of_tokens(draw, width, kind)
        self.norm2 = None if self.order == "side by side" else norm_of_tokens(draw, width, kind)
        self.attn, self.mlp = Attention(draw, width, length), mlp_of(draw, width, length)
        self.element = f"transformer block, norms {self.order}"
        self.scale = nn.Parameter(torch.ones(width)) if draw.chance(0.3) else None
        self.hands_on = draw.chance(0.2)

    def forward(self, x: Tensor, mask: Any = None) -> Any:
        if self.order == "before":
            x = x + self._scaled(self.attn(self.norm1(x)))
            x = x + self._scaled(self.mlp(self.norm2(x)))
        elif self.order == "behind":
            x = self.norm1(x + self.attn(x))
            x = self.norm2(x + self._scaled(self.mlp(x)))
        else:
            y = self.norm1(x)
            x = x + self._scaled(self.attn(y) + self.mlp(y))
        return (x, mask) if self.hands_on else x

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.scale is None else self.scale * x

    def without(self, x: Tensor, mask: Any = None) -> Any:
        return (x, mask) if self.hands_on else x


class Mixer(nn.Module):
    """An MLP over tokens, and one over channels."""

    element = "mixer block"

    def __init__(self, draw: Draw, width: int, length: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens, self.channels = Mlp(draw, length), Mlp(draw, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).mT).mT
        return x + self.channels(self.norm2(x))

    def without(self, x: Tensor) -> Tensor:
        return x


class OfTorch(nn.TransformerEncoderLayer):
    """torch's own layer: its attention computes with layers that it does not call."""

    element = "torch's own transformer layer"

    def __init__(self, draw: Draw, width: int, length: int) -> None:
        before, act = draw.chance(0.5), draw.pick((F.relu, F.gelu))
        super().__init__(width, 2, 8, 0.0, act, batch_first=True, norm_first=before)

    def without(self, x: Tensor) -> Tensor:
        return x


class Twice(nn.Module):
    """One block, called two times, as in ALBERT."""

    element = "block called again"

    def __init__(self, draw: Draw, width: int, length: int) -> None:
        super().__init__()
        self.block = TokenBlock(draw, width, length)
        self.block.hands_on = False

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))

    def without(self, x: Tensor) -> Tensor:
        return x


class Rows(nn.Module):
    """x + mlp(norm(x)) of rows [B, C]."""

    element = "residual of rows"

    def __init__(self, draw: Draw, width: int) -> None:
        super().__init__()
        kinds = (nn.BatchNorm1d, nn.LayerNorm, lambda size: nn.GroupNorm(2, size), lambda _: nn.Identity())
        self.norm = draw.pick(kinds)(width)
        self.work = mlp_of(draw, width, None)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.work(self.norm(x))

    def without(self, x: Tensor) -> Tensor:
        return x
