"""The ways to run a task's model on which everything is proved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.paths import TRAINING, Paths, find_paths
from toolkit.tasks.task import Task


def paths_of(task: Task, model: nn.Module, device: torch.device) -> Paths:
    """Returns eval mode on an example first, then training mode and the task's `other_inputs`, if it has any.

    Raises:
        UserError: the model does not run on one of the `other_inputs`.
    """

    def on_device(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(part.to(device) for part in inputs)

    others = [on_device(tuple(inputs)) for inputs in getattr(task, "other_inputs", ())]
    found = find_paths(model, lambda size: on_device(task.example_inputs(size)), others)
    for fault in found.refused:
        if not fault.startswith(TRAINING):
            raise UserError(f"task {task.name!r}: {fault}; other_inputs are inputs that the model must take")
    return found
