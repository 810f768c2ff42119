"""Holds the type of a recipe's `task`: a name, or a mapping with settings. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Discriminator, Field, SerializeAsAny, Tag

from toolkit.tasks.cards import TASKS
from toolkit.tasks.contract import TaskSettings

BY_NAME: Final = "by name"
_SETTINGS = {name: card.settings for name, card in TASKS.items() if card.settings is not None}
_Name = Annotated[str, Field(min_length=1)]


def task_name(task: str | TaskSettings) -> str:
    """Returns the name of the task that a recipe refers to."""
    return task if isinstance(task, str) else task.type


def _tag(value: Any) -> str | None:
    if not isinstance(value, (Mapping, TaskSettings)):
        return BY_NAME
    kind = value.get("type") if isinstance(value, Mapping) else value.type
    return kind if isinstance(kind, str) and kind in _SETTINGS else None


def _reference() -> Any:
    """Returns the type of a recipe's `task`; it is text alone if no task takes settings."""
    if not _SETTINGS:
        return _Name
    tagged: list[Any] = [Annotated[_Name, Tag(BY_NAME)]]
    for name, settings in _SETTINGS.items():
        tagged.append(Annotated[SerializeAsAny[settings], Tag(name)])  # type: ignore[misc,valid-type]  # known at run time
    choices = (
        f"a mapping says which task it is by type; choose one of: {', '.join(_SETTINGS)}; other tasks by name alone"
    )
    return Annotated[reduce(or_, tagged), Discriminator(_tag, custom_error_type="task", custom_error_message=choices)]


if TYPE_CHECKING:
    TaskReference = str | TaskSettings
else:
    TaskReference = _reference()
