"""Evaluates models on the splits of a task, refuses metrics that are unusable, and averages losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.hooks.memory import batch_size_noted, out_of_memory_named
from toolkit.hooks.modes import evaluating, training_noted
from toolkit.hooks.trial import described, users_code
from toolkit.measure.results import Quality
from toolkit.tasks.task import Batch, Split, Task

SHARES = ("accuracy", "precision", "recall", "F1", "f1", "AUC", "auc", "mAP", "IoU", "mIoU")


def evaluate(task: Task, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
    """Returns what `task.evaluate` gives with the model in eval mode; the model's own mode is restored.

    limit: as in `Task.evaluate`.

    Raises:
        StageError: the task gave no usable metric: it raised an error, or returned something else than a `Quality`, a
            value that is not finite or not within its own bounds, or a value of another split or metric.
        UserError: the device is out of memory.
    """
    options = {} if limit is None else {"limit": limit}
    advice = f"that is the batch size in which task {task.name!r} evaluates; give it a smaller one"
    with (
        evaluating(model),
        training_noted(model) as was_trained,
        batch_size_noted(model) as batch_size,
        out_of_memory_named(f"evaluating the {split} split", batch_size, advice),
        users_code(f"evaluate of task {task.name!r} fails on {split!r}"),
    ):
        try:
            quality: Any = task.evaluate(model, split, **options)
        except ValidationError as error:
            first_error = error.errors()[0]
            place = first_error["loc"][0] if first_error["loc"] else "it"
            raise StageError(
                f"{_no_metric(task, split)}: {place} is {first_error['input']!r}; the model or its data is broken"
            ) from error
    if was_trained():
        raise StageError(
            f"evaluate of task {task.name!r} puts the model into training mode, in which dropout and BatchNorm compute "
            "something else; leave its mode as it is"
        )
    fault = _fault(quality, task, split, limit)
    if fault:
        raise StageError(f"{_no_metric(task, split)}: {fault}")
    assert isinstance(quality, Quality)
    return quality


def _no_metric(task: Task, split: Split) -> str:
    return f"task {task.name!r} gave no usable metric on {split!r}"


def _fault(quality: Any, task: Task, split: Split, limit: int | None) -> str:
    """Returns what is wrong with a result of `Task.evaluate`, in words; an empty text if nothing is."""
    if not isinstance(quality, Quality):
        return (
            f"evaluate gives {described(quality)}; it must return a toolkit.measure.results.Quality(metric=..., "
            "split=..., value=..., num_examples=...), whose value is a float"
        )
    if (quality.metric, quality.split) != (task.metric, split):
        given = f"{quality.metric!r} on {quality.split!r}"
        return f"it is {given}; evaluate must give {task.metric!r} on {split!r}"
    most = task.num_examples(split) if limit is None else min(limit, task.num_examples(split))
    if not 1 <= quality.num_examples <= most:
        return f"its num_examples is {quality.num_examples}; the split has 1 to {most}"
    if quality.metric in SHARES and not 0.0 <= quality.value <= 1.0:
        return f"{quality.metric} is {quality.value:g}; it is a share, from 0 to 1"
    if quality.interval is not None and not quality.interval[0] <= quality.value <= quality.interval[1]:
        return f"{quality.value:g} is outside of its own interval, {quality.interval[0]:g} to {quality.interval[1]:g}"
    return ""


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Iterable[Batch], loss: Callable[[Any, Any], Tensor | float]) -> float:
    """Returns the mean loss over all examples of the batches; the model runs in its present mode.

    loss: gives the mean loss of one batch from the model's outputs and the targets.
    """
    total, count = 0.0, 0
    for batch in batches:
        size = len(batch.inputs[0])
        with users_code("the loss of the task fails"):
            total += float(loss(model(*batch.inputs), batch.targets)) * size
        count += size
    return total / count
