"""Evaluating a model on a task's split: in eval mode, and with a metric that is a number or a clear error."""

from __future__ import annotations

from pydantic import ValidationError
from torch import nn

from toolkit.base.errors import StageError
from toolkit.hooks.modes import evaluating
from toolkit.measure.results import Quality
from toolkit.tasks.task import Split, Task


def evaluate(task: Task, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
    """`task.evaluate` with the model in eval mode, whose own mode comes back; `limit` as in `Task.evaluate`.

    Raises:
        StageError: the task gave no finite metric.
    """
    options = {} if limit is None else {"limit": limit}
    with evaluating(model):
        try:
            return task.evaluate(model, split, **options)
        except ValidationError as error:
            first = error.errors()[0]
            raise StageError(
                f"task {task.name!r} gave no usable metric on {split!r}: {first['loc'][0]} is {first['input']!r}; "
                "the model or its data is broken"
            ) from error
