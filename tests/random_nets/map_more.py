"""More of what works in residual blocks of maps [B, C, ...]: unusual splits, scales, and nets within nets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random_nets.map_blocks import Plain, Residual
from tests.random_nets.parts import Draw, Space, named_activation


class MaxOut(nn.Module):
    """The larger one of two channels that are neighbours, or of two halves."""

    element = "maxout"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.both, self.out, self.are_neighbours = space.conv(width, 12), space.conv(6, width, 1), draw.chance(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.both(x)
        return self.out(y.unflatten(1, (-1, 2)).amax(2) if self.are_neighbours else torch.maximum(*y.chunk(2, 1)))


class Responding(nn.Module):
    """Global response normalisation, as in ConvNeXt V2, in an MLP on channels in the last dimension."""

    element = "global response norm"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.up, self.down, self.act = nn.Linear(width, 12), nn.Linear(12, width), named_activation(draw)
        self.gamma, self.beta = nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.up(x.movedim(1, -1)))
        size = y.square().flatten(1, -2).sum(1).sqrt().reshape(len(y), *([1] * (y.ndim - 2)), -1)
        y = y + self.gamma * (y * (size / (size.mean(-1, keepdim=True) + 1e-6))) + self.beta
        return self.down(y).movedim(-1, 1)


class Weighted(nn.Module):
    """A sum of three branches with learnt weights, one of them dilated, behind a PReLU for each channel."""

    element = "weighted sum of branches"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        hidden = draw.pick((4, 6))
        self.first, self.act = space.conv(width, hidden, 1), nn.PReLU(draw.pick((1, hidden)))
        self.near, self.far = space.conv(hidden, hidden), space.conv(hidden, hidden, 3, padding=2, dilation=2)
        self.weights, self.last = nn.Parameter(torch.ones(3)), space.conv(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first(x))
        return self.last(self.weights[0] * y + self.weights[1] * self.near(y) + self.weights[2] * F.relu(self.far(y)))


class Nested(nn.Sequential):
    """Residual blocks within a residual block."""

    element = "residual within a residual"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__(*(Residual(draw, Plain(draw, space, width)) for _ in range(2)), space.conv(width, width))


class Ordered(nn.Module):
    """Channels put in another order by a list of indices, or turned round."""

    element = "channels in another order"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.first, self.last, self.turns = space.unit(width, 6, 1), space.conv(6, width, 1), draw.chance(0.5)
        self.register_buffer("order", torch.tensor(draw.sample(range(6), 6)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y.flip(1) if self.turns else y[:, self.order])


class Stacked(nn.Module):
    """Two branches, stacked, and mixed by weights that are computed from their mean, as in selective kernels."""

    element = "selective kernels"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        self.space, hidden = space, draw.pick((4, 6))
        self.one, self.other = space.unit(width, hidden, 1), space.unit(width, hidden)
        self.down, self.up, self.last = nn.Linear(hidden, 4), nn.Linear(4, 2 * hidden), space.conv(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack((self.one(x), self.other(x)), 1)
        mean = self.space.average(both.sum(1))
        share = self.up(torch.relu(self.down(mean))).reshape(len(x), 2, -1, *([1] * self.space.dims)).softmax(1)
        return self.last((both * share).sum(1))


class Unpooled(nn.Module):
    """Half of the places and back by a transposed convolution in groups."""

    element = "transposed convolution in groups"

    def __init__(self, draw: Draw, space: Space, width: int) -> None:
        super().__init__()
        kind = nn.ConvTranspose1d if space.dims == 1 else nn.ConvTranspose2d
        self.space, self.first, self.last = space, space.unit(width, 6), space.conv(6, width, 1)
        self.up = kind(6, 6, 2, stride=2, groups=draw.pick((2, 3, 6)))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.space.smaller(self.first(x))))


MORE_WORKS = (MaxOut, Responding, Weighted, Nested, Ordered, Stacked, Unpooled)
