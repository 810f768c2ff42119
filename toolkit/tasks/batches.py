"""Yields the batches of a task, and says in one sentence what is wrong with a task that gives none."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.base.errors import StageError
from toolkit.hooks.trial import described, users_code
from toolkit.tasks.task import Batch, Split, Task


def batches_of(
    task: Task, split: Split, batch_size: int, *, limit: int | None = None, needed_by: str = "this stage"
) -> Iterator[Batch]:
    """Yields the batches of a split, which are the same at every call.

    limit: number of leading examples to use; None uses all.
    needed_by: what needs the batches, in the words of the error.

    Raises:
        StageError: the task fails, yields something else than batches, or yields none.
    """
    what, is_empty = f"batches of task {task.name!r} fails on {split!r}", True
    with users_code(what):
        batches = iter(task.batches(split, batch_size, limit=limit))
    while True:
        with users_code(what):
            batch = next(batches, None)
        if batch is None:
            break
        if not isinstance(batch, Batch):
            raise StageError(
                f"batches of task {task.name!r} gives {described(batch)}; it must give toolkit.Batch(inputs=(...), "
                "targets=...)"
            )
        is_empty = False
        yield batch
    if is_empty:
        raise StageError(f"task {task.name!r} gives no batch for split {split!r}, which {needed_by} needs")
