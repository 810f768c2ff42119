"""Finds the differences that keep two runs from being compared."""

from __future__ import annotations

import json

from toolkit.record.run import RunRecord


def _model_of(record: RunRecord) -> str | None:
    """Returns a zoo model and its settings in words; they also hold the examples that quality is measured on."""
    model = record.recipe.model
    return None if model is None else json.dumps(model.model_dump(mode="json"), sort_keys=True)


def differences(first: RunRecord, second: RunRecord) -> list[str]:
    """Returns the differences that keep two runs from being compared, such as `threads: 2 against 4`.

    Task, model, device, settings of the measurement, processor and the version of torch are compared.
    """
    pairs = {
        "task": (_task_of(first), _task_of(second)),
        "model": (_model_of(first), _model_of(second)),
        "device": (first.recipe.device, second.recipe.device),
        "batch sizes": (first.recipe.measure.batch_sizes, second.recipe.measure.batch_sizes),
        "precisions": (first.recipe.measure.precisions, second.recipe.measure.precisions),
        "runtimes": (first.recipe.measure.runtimes, second.recipe.measure.runtimes),
        "threads": (first.recipe.measure.threads, second.recipe.measure.threads),
        "processor": (first.environment.processor, second.environment.processor),
        "gpu": (first.environment.gpu, second.environment.gpu),
        "torch": (first.environment.packages.get("torch"), second.environment.packages.get("torch")),
    }
    return [f"{name}: {left} against {right}" for name, (left, right) in pairs.items() if left != right]


def _task_of(record: RunRecord) -> str:
    """Returns a task and its settings in words."""
    task = record.recipe.task
    return task if isinstance(task, str) else json.dumps(task.model_dump(mode="json"), sort_keys=True)
