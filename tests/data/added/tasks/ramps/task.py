"""Which channel rises fastest: a made-up task."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.tasks.classification import ClassificationTask
from toolkit.tasks.ramps.card import Ramps


class Block(nn.Module):
    """x + an MLP of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        stream: Tensor = x + self.narrow(torch.relu(self.wide(x)))
        return stream


def make_ramps_task(settings: Ramps, folder: Path | None) -> ClassificationTask:
    """The net is not trained: nothing here depends on how good it is."""

    def build() -> nn.Module:
        blocks = [Block(settings.channels) for _ in range(settings.num_blocks)]
        return nn.Sequential(*blocks, nn.Linear(settings.channels, settings.channels))

    def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
        slopes = torch.randn(count, settings.channels, generator=torch.Generator().manual_seed(seed))
        return slopes, slopes.argmax(-1)

    torch.manual_seed(0)
    return ClassificationTask(build, build(), train=data(96, 1), validation=data(32, 2), test=data(32, 3), name="ramps")
