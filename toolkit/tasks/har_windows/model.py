"""Holds a small 1-D convolutional network with residual blocks, for windows of a sensor's signal."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

KERNEL = 5


class SignalBlock(nn.Module):
    """Adds two convolutions, each with BatchNorm, to the stream [B, width, samples]; a ReLU follows the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, bias=False)
        self.bn2 = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the stream behind the block, of the same shape."""
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class SignalNet(nn.Module):
    """Maps windows [B, channels, samples] to logits [B, classes], by six convolutions; two of them halve the samples.

    widths: channels of the two stages.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[int, int] = (32, 64)) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, widths[0], KERNEL, 2, padding=KERNEL // 2, bias=False)
        self.bn1 = nn.BatchNorm1d(widths[0])
        self.block1 = SignalBlock(widths[0])
        self.conv2 = nn.Conv1d(widths[0], widths[1], KERNEL, 2, padding=KERNEL // 2, bias=False)
        self.bn2 = nn.BatchNorm1d(widths[1])
        self.block2 = SignalBlock(widths[1])
        self.linear = nn.Linear(widths[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits [B, classes] of windows [B, channels, samples]."""
        x = self.block1(F.relu(self.bn1(self.conv1(x))))
        x = self.block2(F.relu(self.bn2(self.conv2(x))))
        logits: Tensor = self.linear(x.mean(2))
        return logits
