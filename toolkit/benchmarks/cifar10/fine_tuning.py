"""Fine-tunes the model of a cell with the last stage of its recipe, without running the stages before it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from toolkit.base.console import Console
from toolkit.measure.macs import count_macs
from toolkit.measure.reproducible import reproducible
from toolkit.recipe.recipe import Recipe
from toolkit.stages.context import StageContext
from toolkit.stages.recover.apply import apply_recover
from toolkit.stages.recover.settings import Recover
from toolkit.stages.rounds import RoundStore
from toolkit.tasks.task import Task


def fine_tune(model: nn.Module, dense: nn.Module, task: Task, recipe: Recipe, folder: Path, console: Console) -> None:
    """Trains `model` in place with the last stage of `recipe`, and with `dense` as teacher.

    The seed is the one that the stage has in a run of the whole recipe. A training that was interrupted goes on from
    what `folder` holds.

    Raises:
        StageError: the training fails.
    """
    number, settings = len(recipe.stages) - 1, recipe.stages[-1]
    assert isinstance(settings, Recover)
    seed = recipe.seed * 1000 + number
    context = StageContext(
        dense=dense,
        dense_macs=0,  # this stage does not use the number
        count_macs=lambda counted: count_macs(counted, task.example_inputs(1)).total,
        device=torch.device("cpu"),
        seed=seed,
        console=console,
        rounds=RoundStore(folder),
    )
    with reproducible(context.device):
        torch.manual_seed(seed)
        apply_recover(model.requires_grad_(True), task, settings, context)
    shutil.rmtree(folder, ignore_errors=True)
