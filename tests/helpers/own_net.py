"""A small net with three blocks, its data, and a run of it as a task of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit import (
    Align,
    BlockDrop,
    ChannelPrune,
    ClassificationTask,
    Keep,
    Measure,
    Recipe,
    load_model,
    run,
)
from toolkit.base.console import Console

DROP = BlockDrop(num_blocks=1)
CUT = ChannelPrune(keep=Keep(mlp=0.5), round_to=1)
ALIGN = Align(trainable="full", max_steps=1, validate_every=1, batch_size=8)


class Block(nn.Module):
    """x + f(x) on [..., 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)))


class Net(nn.Module):
    """Three blocks and a head: [B, 8] -> [B, 4]."""

    def __init__(self, block: Callable[[], nn.Module] = Block) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(block() for _ in range(3)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def data(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 8, generator=generator), torch.randint(0, 4, (count,), generator=generator)


def task_of(build: Callable[[], nn.Module], trained: Any = None, **options: Any) -> ClassificationTask:
    torch.manual_seed(0)
    parts: dict[str, Any] = {"train": data(48), "validation": data(17), "test": data(16)}
    trained = build() if trained is None else trained
    return ClassificationTask(build, trained, name="own", **(parts | options))


def run_own(task: Any, out: Path, quiet: Console, *stages: Any) -> nn.Module:
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)
    recipe = Recipe(name="r", task=task.name, seed=0, device="cpu", stages=stages, measure=measure)
    run(recipe, task=task, out=out, console=quiet)
    return load_model(out, task.build_model())
