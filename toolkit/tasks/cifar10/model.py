"""Holds the residual networks for CIFAR-10 of He et al. (CVPR 2016, section 4.2), with shortcuts without parameters."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64)  # channels of the residual stream in the three stages

NUM_CLASSES = 10


class CifarBlock(nn.Module):
    """Adds two 3x3 convolutions, each with BatchNorm, to a shortcut; a ReLU follows the sum.

    Where the stream becomes wider, `stride` is 2: the shortcut takes every second pixel, and fills the new channels
    with zeros, half of them before and half behind the old ones.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.padding = stride, (width - channels) // 2

    def shortcut(self, x: Tensor) -> Tensor:
        """Returns the shortcut of the stream `x` [B, channels, height, width], to which the convolutions are added."""
        if self.stride == 1:
            return x
        thinned = x[:, :, :: self.stride, :: self.stride]
        return F.pad(thinned, (0, 0, 0, 0, self.padding, self.padding))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the stream behind the block: [B, channels, H, W] -> [B, width, H / stride, W / stride]."""
        added = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + added)


class CifarResNet(nn.Module):
    """Maps images [B, 3, 32, 32] to logits [B, 10]; `depth` is the number of layers, 6 n + 2 for n blocks per stage."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        assert depth >= 8 and (depth - 2) % 6 == 0, f"a depth of 6 n + 2 is needed, not {depth}"
        num_blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(num_blocks, WIDTHS[0], WIDTHS[0])
        self.layer2 = _stage(num_blocks, WIDTHS[0], WIDTHS[1])
        self.layer3 = _stage(num_blocks, WIDTHS[1], WIDTHS[2])
        self.linear = nn.Linear(WIDTHS[2], NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits [B, 10] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(num_blocks: int, channels: int, width: int) -> nn.Sequential:
    first = CifarBlock(channels, width, 1 if channels == width else 2)
    return nn.Sequential(first, *(CifarBlock(width, width, 1) for _ in range(num_blocks - 1)))
