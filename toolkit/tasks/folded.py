"""A task whose model computes weights from others, seen as one whose model has plain weights of the same values."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from toolkit.hooks.folding import computed_tensors, fold_all, fold_tensors
from toolkit.tasks.task import Task
from toolkit.tasks.trial import load_baseline


class FoldedTask:
    """The task that it is made of, but for its models, in which the tensors of `folded` are parameters of their own.

    folded: what computed each of these tensors, by name, as `computed_tensors` says it.
    """

    def __init__(self, task: Task, folded: dict[str, str]) -> None:
        self._task, self.folded = task, folded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build_model(self) -> nn.Module:
        """As in `Task`, folded."""
        model = self._task.build_model()
        fold_tensors(model, self.folded)
        return model

    def load_baseline(self) -> nn.Module:
        """As in `Task`, folded."""
        model = self._task.load_baseline()
        fold_all(model)
        return model


def folded_task(task: Task) -> tuple[Task, dict[str, str]]:
    """Returns the task with plain weights, and what was folded; the task itself where its model computes none.

    Raises:
        UserError: what computes a weight cannot be taken away.
    """
    folded = computed_tensors(load_baseline(task))
    return (cast("Task", FoldedTask(task, folded)), folded) if folded else (task, {})
