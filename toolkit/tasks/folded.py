"""Presents a task whose model computes weights from others as a task whose model has plain weights of those values."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from toolkit.hooks.folding import computed_tensors, fold_all, fold_tensors
from toolkit.tasks.task import Task
from toolkit.tasks.trial import load_baseline


class FoldedTask:
    """Wraps a task, in whose models the tensors of `folded` become plain parameters.

    folded: what computed each tensor, by the tensor's name, as `computed_tensors` gives it.
    """

    def __init__(self, task: Task, folded: dict[str, str]) -> None:
        self._task, self.folded = task, folded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build_model(self) -> nn.Module:
        """Returns the task's untrained model with plain parameters."""
        model = self._task.build_model()
        fold_tensors(model, self.folded)
        return model

    def load_baseline(self) -> nn.Module:
        """Returns the task's trained model with plain parameters."""
        model = self._task.load_baseline()
        fold_all(model)
        return model


def folded_task(task: Task) -> tuple[Task, dict[str, str]]:
    """Returns the task with plain weights, and what computed them; the task itself if its model computes none.

    Raises:
        UserError: the code that computes a weight cannot be removed.
    """
    folded = computed_tensors(load_baseline(task))
    return (cast("Task", FoldedTask(task, folded)), folded) if folded else (task, {})
