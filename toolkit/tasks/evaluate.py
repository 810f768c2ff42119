"""Evaluates a model on a task's split, with a metric that is a number or a clear error, and averages losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.hooks.memory import batch_size_noted, out_of_memory_named
from toolkit.hooks.modes import evaluating
from toolkit.measure.results import Quality
from toolkit.tasks.task import Batch, Split, Task


def evaluate(task: Task, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
    """`task.evaluate` with the model in eval mode, whose own mode comes back; `limit` as in `Task.evaluate`.

    Raises:
        StageError: the task gave no finite metric.
        UserError: the device is out of memory.
    """
    options = {} if limit is None else {"limit": limit}
    advice = f"that is the batch size in which task {task.name!r} evaluates; give it a smaller one"
    with (
        evaluating(model),
        batch_size_noted(model) as batch_size,
        out_of_memory_named(f"evaluating the {split} split", batch_size, advice),
    ):
        try:
            return task.evaluate(model, split, **options)
        except ValidationError as error:
            first = error.errors()[0]
            raise StageError(
                f"task {task.name!r} gave no usable metric on {split!r}: {first['loc'][0]} is {first['input']!r}; "
                "the model or its data is broken"
            ) from error


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Iterable[Batch], loss: Callable[[Any, Any], Tensor | float]) -> float:
    """Returns the mean loss over all examples of the batches. The model is run as it is, in its own mode.

    loss: gives the mean loss of one batch from the model's outputs and the targets.
    """
    total, count = 0.0, 0
    for batch in batches:
        size = len(batch.inputs[0])
        total += float(loss(model(*batch.inputs), batch.targets)) * size
        count += size
    return total / count
