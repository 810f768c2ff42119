"""A model as a user may have it in a plain Python file: no zoo, no base class, unusual names, two inputs."""

import torch
from torch import nn


class Gate(nn.Module):
    """x + gated depthwise convolution over time, padding left alone; hands back a tuple, called by keyword."""

    def __init__(self, width, reach):
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.mix = nn.Conv1d(width, width, 2 * reach + 1, padding=reach, groups=width)
        self.gate = nn.Conv1d(width, width, 1)

    def forward(self, *, stream, keep):
        side = self.norm(stream)
        return stream + torch.sigmoid(self.gate(side)) * self.mix(side) * keep, keep


class Squeeze(nn.Module):
    """x + an MLP over the channels."""

    def __init__(self, width):
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, stream):
        return stream + self.narrow(torch.relu(self.wide(stream.mT))).mT


class Sensor(nn.Module):
    """Signals [B, 3, T] and their true lengths [B] (int64) -> logits [B, 4]."""

    def __init__(self, width=12):
        super().__init__()
        self.lift = nn.Conv1d(3, width, 1)
        self.near = Gate(width, 1)
        self.think = Squeeze(width)
        self.wide = nn.ModuleDict({"five": Gate(width, 2), "nine": Gate(width, 4)})
        self.reduce = nn.Conv1d(width, width, 2, stride=2)  # halves the stream: cannot be dropped
        self.late = Squeeze(width)
        self.out = nn.Linear(width, 4)

    def forward(self, signal, lengths):
        keep = (torch.arange(signal.shape[-1], device=signal.device) < lengths[:, None])[:, None].to(signal.dtype)
        stream, _ = self.near(stream=self.lift(signal), keep=keep)
        stream = self.think(stream)
        for block in self.wide.values():
            stream, _ = block(stream=stream, keep=keep)
        return self.out(self.late(self.reduce(stream)).mean(-1))
