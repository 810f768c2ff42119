"""Records how a training went, and says it on the console."""

from __future__ import annotations

from dataclasses import asdict

from toolkit.base.console import Console
from toolkit.stages.recorded import CurvePoint, StartPoint, TrainingDetail
from toolkit.tasks.cards import has_labels
from toolkit.tasks.task import Task
from toolkit.training.checkpoint import FitResult
from toolkit.training.fit import FitConfig


def training_of(result: FitResult, config: FitConfig, task: Task, console: Console, title: str) -> TrainingDetail:
    """Returns the record of a training, with a point for every validation, and prints which weights were kept."""
    detail = TrainingDetail(
        steps=result.steps,
        stopped=result.stopped,
        kept_step=result.best_step,
        curve=tuple(CurvePoint(**asdict(point)) for point in result.curve),
        start=None if result.start is None else StartPoint(**asdict(result.start)),
        select=config.select,
        metric=task.metric,
        failure=result.failure or None,
        teacher_only=not has_labels(task.name),
    )
    console.line(f"  {title}: {detail.outcome()}")
    return detail
