"""Residual blocks and what works in them, for maps [B, C, ...]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random_nets.attention import Attention
from tests.random_nets.parts import Draw, Space, activation, groups_of, named_activation


class Residual(nn.Module):
    """x + work(x), perhaps with an activation behind the sum, perhaps in place."""

    element = "residual"

    def __init__(self, draw: Draw, work: nn.Module) -> None:
        super().__init__()
        self.work, self.way = work, draw.pick(("sum", "in place", "added to", "scaled"))
        self.after = draw.pick((None, None, F.relu, F.gelu))
        if self.after is not None:
            self.element = "residual, activation behind the sum"

    def forward(self, x: Tensor) -> Tensor:
        y = self.work(x)
        if self.way == "in place":
            y += x
        elif self.way == "added to":
            y = torch.add(x, y)
        else:
            y = x + (0.5 * y if self.way == "scaled" else y)
        return y if self.after is None else self.after(y)

    def without(self, x: Tensor) -> Tensor:
        return x


class Squeeze(nn.Module):
    """Squeeze-and-excitation, of linear layers or of convolutions."""

    element = "squeeze and excitation"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.space, self.is_linear, hidden = space, draw.chance(0.5), draw.pick((2, 4, 6))
        layer = nn.Linear if self.is_linear else lambda wide, narrow: space.conv(wide, narrow, 1)
        self.down, self.up, self.act = layer(width, hidden), layer(hidden, width), activation(draw)

    def forward(self, x: Tensor) -> Tensor:
        pooled, shape = self.space.average(x), (*x.shape[:2], *([1] * self.space.dims))
        if self.is_linear:
            return x * self.up(self.act(self.down(pooled))).sigmoid().view(shape)
        return x * torch.sigmoid(self.up(self.act(self.down(pooled.view(shape)))))


class GatedConv(nn.Module):
    """A convolution twice as wide, whose halves are value and gate."""

    element = "gated convolution"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        hidden = draw.pick((4, 6, 8))
        self.way, self.act, self.hidden = draw.pick(("glu", "chunk", "split", "slices")), named_activation(draw), hidden
        self.both, self.out = space.conv(width, 2 * hidden), space.conv(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = self.both(x)
        if self.way == "glu":
            return self.out(F.glu(both, 1))
        if self.way == "slices":
            value, gate = both[:, : self.hidden], both[:, self.hidden :]
        else:
            value, gate = both.chunk(2, 1) if self.way == "chunk" else both.split(self.hidden, 1)
        return self.out(value * self.act(gate))


class NextBlock(nn.Module):
    """Depthwise convolution, then an MLP on channels in the last dimension, then a scale, as in ConvNeXt."""

    element = "scaled mlp behind a depthwise convolution"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.depth, self.norm = space.conv(width, width, 3, groups=width), nn.LayerNorm(width)
        self.up, self.act, self.down = nn.Linear(width, 2 * width), named_activation(draw), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).movedim(1, -1))
        return (self.scale * self.down(self.act(self.up(y)))).movedim(-1, 1)


class Repeated(nn.Module):
    """One convolution, called two or three times."""

    element = "layer called again"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        hidden = draw.pick((4, 6))
        self.first, self.again, self.last = (
            space.conv(width, hidden),
            space.conv(hidden, hidden),
            space.conv(hidden, width, 1),
        )
        self.times, self.act = draw.pick((2, 3)), named_activation(draw)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first(x))
        for _ in range(self.times):
            y = self.act(self.again(y))
        return self.last(y)


class OverPlaces(nn.Module):
    """Attention among all places of a map."""

    element = "attention over places"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.norm, self.attention = space.norm(width), Attention(draw, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.norm(x).flatten(2).mT)
        return y.mT.reshape(x.shape)


class SpatialGate(nn.Module):
    """x times a map of one channel."""

    element = "spatial gate"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.first, self.gate, self.last = (
            space.unit(width, 6, 1),
            space.conv(6, 1),
            space.conv(6, width, draw.pick((1, 3))),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y * self.gate(y).sigmoid())


class Plain(nn.Sequential):
    element = "two convolutions"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        hidden = draw.pick((4, 6, width))
        super().__init__(space.unit(width, hidden), space.conv(hidden, width), space.norm(width))


class PreActivation(nn.Sequential):
    element = "pre-activation"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        first = [space.norm(width), draw.pick((nn.ReLU, nn.SiLU))(), space.conv(width, 6)]
        super().__init__(*first, space.norm(6), activation(draw), space.conv(6, width))


class Bottleneck(nn.Sequential):
    element = "bottleneck with groups"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        hidden = draw.pick((6, 8, 12))
        middle = space.unit(hidden, hidden, 3, groups=draw.pick((1, groups_of(draw, hidden))))
        super().__init__(space.unit(width, hidden, 1), middle, space.conv(hidden, width, 1), space.norm(width))


class Inverted(nn.Sequential):
    element = "inverted residual"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        hidden, times = draw.pick((8, 12)), draw.pick((1, 1, 2))
        parts = [space.unit(width, hidden, 1), space.unit(hidden, times * hidden, 3, groups=hidden)]
        if draw.chance(0.5):
            parts.append(Squeeze(draw, space, times * hidden))
        super().__init__(*parts, space.conv(times * hidden, width, 1), space.norm(width))


WORKS = (
    Plain, PreActivation, Bottleneck, Inverted, GatedConv, NextBlock, Repeated, OverPlaces, SpatialGate,
)  # fmt: skip
