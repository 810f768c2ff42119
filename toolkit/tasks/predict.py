"""Predicts a split with a model of a task."""

from __future__ import annotations

from torch import nn

from toolkit.base.errors import UserError
from toolkit.hooks.modes import evaluating
from toolkit.hooks.trial import users_code
from toolkit.tasks.predictions import Predictions, Predicts
from toolkit.tasks.task import Split, Task


def predictions_of(task: Task, model: nn.Module, split: Split) -> Predictions:
    """Returns what the model predicts for a fixed split of the task's data.

    Raises:
        UserError: the task has no method `predictions`, or it fails.
    """
    if not isinstance(task, Predicts):
        raise UserError(
            f"task {task.name!r} gives no predictions; give it the method predictions(model, split) of "
            "toolkit/tasks/predictions.py, as ClassificationTask has it"
        )
    with evaluating(model), users_code(f"predictions of task {task.name!r} fails on {split!r}"):
        found = task.predictions(model, split)
    if not isinstance(found, Predictions):
        raise UserError(f"predictions of task {task.name!r} gives {type(found).__name__}; it must give Predictions")
    return found
