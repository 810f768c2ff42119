"""What changes a map [B, C, ...]: concatenations, splits, shuffles, strides with shortcuts, pyramids."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random_nets.parts import Draw, Space, activation, named_activation


class Dense(nn.Module):
    """Every layer reads all that were before it, as in DenseNet; the stream grows."""

    element = "dense concatenation"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        grown, self.keeps_list = draw.pick((3, 4)), draw.chance(0.5)
        sizes = [width + grown * number for number in range(3)]
        self.layers = nn.ModuleList(space.unit(size, grown) for size in sizes)
        self.out = width + 3 * grown

    def forward(self, x: Tensor) -> Tensor:
        if not self.keeps_list:
            for layer in self.layers:
                x = torch.cat((x, layer(x)), 1)
            return x
        parts = [x]
        for layer in self.layers:
            parts.append(layer(torch.cat(parts, 1)))
        return torch.cat(parts, 1)


class Inception(nn.Module):
    """Branches side by side."""

    element = "branches side by side"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.space = space
        self.one, self.three, self.pooled = (
            space.unit(width, 4, 1),
            nn.Sequential(space.unit(width, 6, 1), space.unit(6, 6)),
            space.unit(width, 3, 1),
        )
        self.out = 13 + width if draw.chance(0.3) else 13

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.space.average(x).reshape(*x.shape[:2], *([1] * self.space.dims)).expand(x.shape)
        parts = [self.one(x), self.three(x), self.pooled(pooled)]
        return torch.cat([*parts, x] if self.out > 13 else parts, 1)


class CrossStage(nn.Module):
    """Half of the channels are worked on, the other half goes by."""

    element = "half goes by"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.first = space.unit(width, 8, 1)
        self.way, self.rest = draw.pick(("chunk", "split", "sizes", "slices")), draw.pick((2, 4))
        worked = 8 - self.rest if self.way in ("sizes", "slices") else 4
        self.sizes = [8 - worked, worked]
        self.work, self.out = space.unit(worked, worked), 8

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.way == "slices":
            by, worked = y[:, : self.sizes[0]], y[:, self.sizes[0] :]
        else:
            ways = {
                "chunk": lambda: y.chunk(2, 1),
                "split": lambda: y.split(4, 1),
                "sizes": lambda: y.split(self.sizes, 1),
            }
            by, worked = ways[self.way]()
        return torch.cat((by, self.work(worked)), 1)


class Shuffled(nn.Module):
    """Convolutions in groups with the channels shuffled between them."""

    element = "channel shuffle"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.out, self.groups = 8, 2
        self.first, self.second = space.unit(width, 8, 1), space.unit(8, 8, 3, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = y.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        return self.second(y)


class Strided(nn.Module):
    """Half of the places and more channels, with a shortcut: a convolution, or padding with zeros."""

    element = "shortcut by a convolution"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.more = draw.pick((2, 4))
        self.out, self.pads = width + self.more, draw.chance(0.4)
        self.work = nn.Sequential(space.unit(width, self.out, 3, stride=2), space.conv(self.out, self.out))
        self.short = None if self.pads else space.conv(width, self.out, 1, stride=2)
        self.act, self.dims = named_activation(draw), space.dims
        if self.pads:
            self.element = "padded shortcut"

    def forward(self, x: Tensor) -> Tensor:
        if self.short is not None:
            return self.act(self.work(x) + self.short(x))
        thinned = x[..., ::2] if self.dims == 1 else x[..., ::2, ::2]
        half = self.more // 2
        return self.act(self.work(x) + F.pad(thinned, (0, 0) * self.dims + (half, half)))


class Pyramid(nn.Module):
    """Down and up again, as in a U-Net: the wide map is put beside the narrow one that comes back."""

    element = "down and up again"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.space, self.learnt, self.adds = space, draw.chance(0.5), draw.chance(0.4)
        self.down = space.unit(width, 8)
        self.back = space.up(8, 6) if self.learnt else space.conv(8, 6)
        self.side, self.out = space.conv(width, 6, 1), 6 if self.adds else 12

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.space.smaller(x))
        y = self.back(y) if self.learnt else F.interpolate(self.back(y), scale_factor=2)
        return self.side(x) + y if self.adds else torch.cat((self.side(x), y), 1)


class Pixels(nn.Module):
    """Channels become places, and are thinned out again."""

    element = "pixels from channels"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.wide, self.act, self.out = nn.Conv2d(width, 20, 1), activation(draw), 5

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.act(F.pixel_shuffle(self.wide(x), 2)), 2)


class Twins(nn.Module):
    """One layer for two maps, and the sum, product or concatenation of what it makes."""

    element = "one layer for two maps"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.one, self.other, self.shared = space.unit(width, 6, 1), space.unit(width, 6), space.conv(6, 8)
        self.way, self.act = draw.pick(("sum", "product", "beside")), named_activation(draw)
        self.out = 16 if self.way == "beside" else 8

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.shared(self.one(x)), self.act(self.shared(self.other(x)))
        if self.way == "beside":
            return torch.cat((first, second), 1)
        return first + second if self.way == "sum" else first * second


JOINTS = (Dense, Inception, CrossStage, Shuffled, Strided, Pyramid, Pixels, Twins)
