"""Holds a small R(2+1)D network (Tran et al., CVPR 2018): residual blocks of convolutions over space, then over time.

At both ends of a clip the frame there is repeated for the convolutions over time. With zeros instead, a clip that shows
one frame 16 times would have features that differ from step to step.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SpaceTimeConv(nn.Sequential):
    """Convolves over space, then over time: 1 x 3 x 3, BatchNorm, ReLU, 3 x 1 x 1, BatchNorm.

    stride: of both spatial dimensions; time keeps its length.
    """

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(channels, width, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.ReplicationPad3d((0, 0, 0, 0, 1, 1)),
            nn.Conv3d(width, width, (3, 1, 1), bias=False),
            nn.BatchNorm3d(width),
        )


class SpaceTimeBlock(nn.Module):
    """Adds a convolution over space and time to the stream [B, width, T, H, W]; a ReLU follows the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = SpaceTimeConv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the stream behind the block, of the same shape."""
        return F.relu(x + self.conv(x))


class MovingDigitsNet(nn.Module):
    """Maps clips [B, 1, 16, 32, 32] to the logits of the digit [B, 10] and of the motion [B, 8].

    widths: channels of the stem and of the two stages; every one of these halves height and width.
    num_blocks: the number of residual blocks in each of the two stages.
    """

    def __init__(self, widths: tuple[int, int, int] = (16, 24, 48), num_blocks: tuple[int, int] = (2, 1)) -> None:
        super().__init__()
        stem, middle, last = widths
        self.stem = SpaceTimeConv(1, stem, stride=2)
        self.down1 = SpaceTimeConv(stem, middle, stride=2)
        self.stage1 = nn.Sequential(*(SpaceTimeBlock(middle) for _ in range(num_blocks[0])))
        self.down2 = SpaceTimeConv(middle, last, stride=2)
        self.stage2 = nn.Sequential(*(SpaceTimeBlock(last) for _ in range(num_blocks[1])))
        self.digit = nn.Linear(last, 10)
        self.motion = nn.Linear(last, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits of the digit [B, 10] and of the motion [B, 8] of clips [B, 1, 16, 32, 32]."""
        x = self.stage1(F.relu(self.down1(F.relu(self.stem(x)))))
        x = self.stage2(F.relu(self.down2(x)))
        pooled = x.amax((3, 4)).mean(2)
        return self.digit(pooled), self.motion(pooled)
