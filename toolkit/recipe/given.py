"""Finds the task in a recipe file for commands that want the task alone, and looks at the files that a task names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from toolkit.base.errors import Fault, RecipeError, UserError
from toolkit.recipe.read import read_recipe
from toolkit.recipe.recipe import Recipe
from toolkit.recipe.yaml_nodes import Lines
from toolkit.tasks.cards import look_at_files
from toolkit.tasks.contract import TaskSettings
from toolkit.zoo.settings import ZooModel

ENDINGS = (".yaml", ".yml")


class TaskOfRecipe(NamedTuple):
    """Holds the task of a recipe: its name or settings, its zoo model, and what relative paths in them start from."""

    task: str | TaskSettings
    model: ZooModel | None
    folder: Path

    def in_recipe(self, recipe: Recipe, file: Path) -> Recipe:
        """Returns another recipe with this task; `file` is where that recipe will be."""
        return recipe.model_copy(update={"task": self.task, "model": self.model}).moved(self.folder, file.parent)


def task_of_recipe(name: str) -> TaskOfRecipe | None:
    """Returns the task in the recipe file of this name; None if the name is not that of a YAML file.

    Raises:
        RecipeError: the recipe has faults.
        UserError: the recipe's task is the user's own.
    """
    path = Path(name)
    if path.suffix not in ENDINGS:
        return None
    recipe, lines = read_recipe(path)
    if recipe.own_task is not None:
        raise UserError(f"{path}: its task {recipe.task_name!r} is your own; give its file: --task FILE.py")
    see_files(recipe, lines, path)
    return TaskOfRecipe(recipe.task, recipe.model, path.parent)


def see_files(recipe: Recipe, lines: Lines, path: Path) -> tuple[str, ...] | None:
    """Returns in words what is in the files that the recipe's task names; None if it names none.

    lines: the lines of the recipe's values.
    path: the file of the recipe, from whose folder relative paths start.

    Raises:
        RecipeError: the files have faults; the message holds all of them.
    """
    seen = look_at_files(recipe.task, path.parent)
    if seen is None:
        return None
    faults = [Fault(("task", *place), message) for place, message in seen.faults]
    if faults:
        raise RecipeError([replace(fault, line=lines.at(fault.path)) for fault in faults], path)
    return seen.notes
