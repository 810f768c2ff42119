"""Names the group of each example, for tasks that tell groups."""

from __future__ import annotations

from toolkit.tasks.task import HasStrata, Split, Task


def groups_of(task: Task, split: Split) -> list[str]:
    """Returns the name of the group of each example of a split; nothing if the task tells no groups."""
    if not isinstance(task, HasStrata):
        return []
    strata = task.strata(split)
    return [strata.names[member] for member in strata.members.tolist()]
