"""The tiny task on whatever device its model is, and runs of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from tests.helpers.tiny_task import TinyTask
from toolkit.base.console import Console
from toolkit.measure.results import Quality
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.record.run import RunRecord
from toolkit.running.runner import run
from toolkit.stages.settings import Stage
from toolkit.tasks.task import Split


class DeviceTask(TinyTask):
    """As the tiny task; it evaluates on the model's device."""

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        device = next(model.parameters()).device
        moved = lambda *inputs: model(*(part.to(device) for part in inputs)).cpu()  # noqa: E731
        return super().evaluate(moved, split, limit=limit)  # type: ignore[arg-type]


def recipe_on(device: Literal["cpu", "cuda"], *stages: Stage, **measure: object) -> Recipe:
    asked = {"batch_sizes": (1,), "threads": 1, "repeats": 3, "warmup": 0, "splits": ("test",)} | measure
    return Recipe(name="tiny", task="tiny", seed=0, device=device, stages=stages, measure=Measure.model_validate(asked))


def run_on(device: Literal["cpu", "cuda"], out: Path, *stages: Stage, **measure: object) -> RunRecord:
    return run(recipe_on(device, *stages, **measure), task=DeviceTask(), out=out, console=Console(io.StringIO()))
