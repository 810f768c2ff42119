"""Small convolutional nets with one, two or three dimensions, for tests of dynamic convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.tasks.classification import ClassificationTask

CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SIZES = {1: (21,), 2: (7, 8), 3: (9, 6, 5)}
CHANNELS, CLASSES = 4, 3


class ConvBlock(nn.Module):
    """x + conv(norm(relu(conv(x)))): a residual block that can be dropped."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.conv1 = CONVS[dims](width, width, 3, padding=1, bias=False)
        self.norm1 = NORMS[dims](width)
        self.conv2 = CONVS[dims](width, width, 3, padding=1, bias=False)
        self.norm2 = NORMS[dims](width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


class ConvNet(nn.Module):
    """Stem, two residual blocks, mean over all positions, linear head."""

    def __init__(self, dims: int = 1, width: int = 8) -> None:
        super().__init__()
        self.stem = CONVS[dims](CHANNELS, width, 3, padding=1)
        self.norm = NORMS[dims](width)
        self.blocks = nn.ModuleList(ConvBlock(dims, width) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.flatten(2).mean(2))


def conv_net(dims: int = 1, width: int = 8, seed: int = 0) -> ConvNet:
    torch.manual_seed(seed)
    net = ConvNet(dims, width)
    with torch.no_grad():
        for _ in range(5):  # statistics that are not those of a new layer
            net(clips(16, dims, seed))
    return net.eval()


def clips(number: int, dims: int = 1, seed: int = 0) -> Tensor:
    """Signals of which half do not change in time."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(number, CHANNELS, *SIZES[dims], generator=generator)
    values[::2] = values[::2, :, :1]
    return values


def conv_task(dims: int = 1, sizes: Sequence[int] = (96, 24, 24)) -> ClassificationTask:
    """The net's own answers are the labels, so that the unmodified model is always right."""
    net = conv_net(dims)

    def split(number: int, seed: int) -> tuple[Tensor, Tensor]:
        inputs = clips(number, dims, seed)
        with torch.no_grad():
            return inputs, net(inputs).argmax(1)

    train, validation, test = (split(number, seed) for seed, number in enumerate(sizes, 100))
    return ClassificationTask(lambda: ConvNet(dims), net, train=train, validation=validation, test=test, name="clips")
