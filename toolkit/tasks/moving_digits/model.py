"""Holds a small network for clips: convolutions over space alone at the bottom, an R(2+1)D of residual blocks on top.

The bottom looks at every frame alone; the top convolves over space, then over time (Tran et al., CVPR 2018). Of the
networks that convolve over time in some layers only, those with these layers on top were found the better ones
(top-heavy S3D, Xie et al., ECCV 2018). The bottom takes three quarters of the multiply-adds and no skip path leads past
it: what it leaves out of a frame, no later layer can make good. The network is narrow, so that channels matter too.

At both ends of a clip the step there is repeated for the convolutions over time. With zeros instead, a clip that shows
one frame 16 times would have features that differ from step to step.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SpaceConv(nn.Sequential):
    """Convolves over space: 1 x 3 x 3, BatchNorm.

    stride: of both spatial dimensions.
    """

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(channels, width, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False), nn.BatchNorm3d(width)
        )


class TimeConv(nn.Sequential):
    """Convolves over time: 3 x 1 x 1, BatchNorm; time keeps its length."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ReplicationPad3d((0, 0, 0, 0, 1, 1)),
            nn.Conv3d(width, width, (3, 1, 1), bias=False),
            nn.BatchNorm3d(width),
        )


class SpaceTimeBlock(nn.Module):
    """Adds a convolution over space, then over time, to the stream [B, width, T, H, W]; a ReLU follows the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = SpaceConv(width, width)
        self.time = TimeConv(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the stream behind the block, of the same shape."""
        return F.relu(x + self.time(F.relu(self.space(x))))


class MovingDigitsNet(nn.Module):
    """Maps clips [B, 1, 16, 32, 32] to the logits of the digit [B, 10] and of the motion [B, 8].

    widths: channels at a half, a quarter and an eighth of the height and width.
    num_blocks: the number of residual blocks.
    """

    def __init__(self, widths: tuple[int, int, int] = (12, 16, 16), num_blocks: int = 3) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.bottom = nn.Sequential(
            SpaceConv(1, half, stride=2),
            nn.ReLU(),
            SpaceConv(half, half),
            nn.ReLU(),
            SpaceConv(half, quarter, stride=2),
            nn.ReLU(),
            SpaceConv(quarter, quarter),
            nn.ReLU(),
        )
        self.space = SpaceConv(quarter, eighth, stride=2)
        self.time = TimeConv(eighth)
        self.blocks = nn.Sequential(*(SpaceTimeBlock(eighth) for _ in range(num_blocks)))
        self.digit = nn.Linear(eighth, 10)
        self.motion = nn.Linear(eighth, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits of the digit [B, 10] and of the motion [B, 8] of clips [B, 1, 16, 32, 32]."""
        x = F.relu(self.time(F.relu(self.space(self.bottom(x)))))
        pooled = self.blocks(x).amax((3, 4)).mean(2)
        return self.digit(pooled), self.motion(pooled)
