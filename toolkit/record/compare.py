"""Tells what keeps two runs from being compared."""

from __future__ import annotations

import json

from toolkit.record.run import RunRecord


def _model_of(record: RunRecord) -> str | None:
    """A zoo model and its settings, in words; the examples are part of what quality means."""
    model = record.recipe.model
    return None if model is None else json.dumps(model.model_dump(mode="json"), sort_keys=True)


def differences(first: RunRecord, second: RunRecord) -> list[str]:
    """What keeps two runs from being compared: task, device, settings of the measurement, processor, versions."""
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
    return [f"{name}: {one} against {other}" for name, (one, other) in pairs.items() if one != other]


def _task_of(record: RunRecord) -> str:
    """A task and its settings, in words."""
    task = record.recipe.task
    return task if isinstance(task, str) else json.dumps(task.model_dump(mode="json"), sort_keys=True)
