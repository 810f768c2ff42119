"""Lists the built-in tasks by their cards, which say what a recipe may ask of them. Nothing here imports torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.base.errors import UserError
from toolkit.base.words import did_you_mean
from toolkit.tasks.agreement.card import CARD as AGREEMENT
from toolkit.tasks.cifar10.card import CARDS as CIFAR10
from toolkit.tasks.contract import FilesSeen, TaskCard, TaskSettings
from toolkit.tasks.har_windows.card import CARDS as HAR_WINDOWS
from toolkit.tasks.images.card import CARD as IMAGES
from toolkit.tasks.moving_digits.card import CARD as MOVING_DIGITS
from toolkit.tasks.tad.hapt.card import CARDS as HAPT
from toolkit.tasks.tad.watch.card import CARD as WATCH
from toolkit.zoo.settings import ZooModel

if TYPE_CHECKING:
    from toolkit.tasks.task import Task

TASKS: dict[str, TaskCard] = {
    card.name: card for card in (WATCH, *HAPT, *HAR_WINDOWS, *CIFAR10, MOVING_DIGITS, IMAGES, AGREEMENT)
}


def own_model_tasks() -> list[str]:
    """Returns the names of the tasks that bring their own model and need no settings."""
    return [name for name, card in TASKS.items() if not card.takes_model and card.settings is None]


def any_model_task() -> TaskCard:
    """Returns the card of the task for which a recipe names any model."""
    return next(card for card in TASKS.values() if card.takes_model)


def has_labels(name: str) -> bool:
    """Returns whether a task learns from labels, which a user's own task is assumed to do."""
    return name not in TASKS or TASKS[name].has_labels


def make_task(task: str | TaskSettings, model: ZooModel | None = None, folder: Path | None = None) -> Task:
    """Returns a built-in task, whose data and trained model are at hand.

    task: the name of the task, or its settings.
    model: the model, for the task whose model a recipe names; None for every other task.
    folder: what relative paths in the model or the settings start from; None stands for the current folder.

    Raises:
        UserError: there is no such task, or it cannot be made of this model or with these settings.
    """
    name = task if isinstance(task, str) else task.type
    if name not in TASKS:
        raise UserError(f"{name!r} is not a known task; {did_you_mean(name, TASKS)}choose one of: {', '.join(TASKS)}")
    card = TASKS[name]
    if (model is None) == card.takes_model:
        raise UserError(f"task {name!r} {'needs a model: ZooModel(...)' if model is None else 'has its own model'}")
    if isinstance(task, str) and card.settings is not None:
        raise UserError(f"task {name!r} needs settings: {card.settings.__name__}(...)")
    make = _imported(card.factory)
    built: Task = make(model, folder) if model is not None else make() if isinstance(task, str) else make(task, folder)
    return built


def look_at_files(task: str | TaskSettings, folder: Path) -> FilesSeen | None:
    """Returns what is found in the files that a task's settings name; None if the task has no such files.

    folder: what relative paths in the settings start from.
    """
    look = None if isinstance(task, str) else TASKS[task.type].look
    if look is None:
        return None
    seen: FilesSeen = _imported(look)(task, folder)
    return seen


def _imported(name: str) -> Any:
    """Returns what "module:attribute" names; the module is imported only now."""
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)
