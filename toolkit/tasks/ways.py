"""Finds the ways to run a task's model: every drop and cut is proved on all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.paths import TRAINING, Paths, find_paths
from toolkit.tasks.task import Task


def paths_of(task: Task, model: nn.Module, device: torch.device) -> Paths:
    """Returns the ways to run the model: eval mode on an example, then training mode and the task's `other_inputs`.

    Raises:
        UserError: the model does not run on one of the `other_inputs`.
    """

    def on_device(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(part.to(device) for part in inputs)

    others = [on_device(tuple(inputs)) for inputs in getattr(task, "other_inputs", ())]
    paths = find_paths(model, lambda size: on_device(task.example_inputs(size)), others)
    for fault in paths.refused:
        if not fault.startswith(TRAINING):
            raise UserError(f"task {task.name!r}: {fault}; the model must take all of other_inputs")
    return paths
