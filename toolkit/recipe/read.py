"""Reads a recipe from strict YAML, and reports all faults at once, with file, line and the legal choices."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from toolkit.base.errors import Fault
from toolkit.recipe.changes import ChangedValue
from toolkit.recipe.check import (
    card_of,
    check_measure,
    check_model,
    check_named,
    check_own_task,
    check_stages,
    check_task,
)
from toolkit.recipe.faults import shown
from toolkit.recipe.read_settings import read_settings
from toolkit.recipe.recipe import RECIPE_VERSION, Measure, Recipe
from toolkit.recipe.yaml_nodes import Lines
from toolkit.stages.settings import Stage
from toolkit.tasks.cards import TASKS
from toolkit.tasks.origin import TaskOrigin
from toolkit.tasks.reference import TaskReference, task_name
from toolkit.zoo.settings import ZooModel

RESOLVED_FILE = "recipe.resolved.yaml"  # in the folder of a run: the recipe with all defaults written out


def load_recipe(path: Path | str) -> Recipe:
    """Returns the recipe in the file at `path`, validated and checked.

    A task that is not built in is taken for the user's own, of which only what holds for every task is checked; `run`
    takes the task itself, `run(recipe, task=...)`, and refuses a name that it does not know.

    path: the file of a recipe, or the folder of a run, for the recipe that was run.

    Raises:
        RecipeError: the recipe has faults; the message holds all of them, or one alone if the file is not YAML.
    """
    path = Path(path)
    of_run = path / RESOLVED_FILE
    return read_recipe(of_run if of_run.exists() else path, may_be_unknown=True)[0]


def read_recipe(
    path: Path | str,
    own_task: TaskOrigin | None = None,
    changes: Sequence[ChangedValue] = (),
    *,
    may_be_unknown: bool = False,
) -> tuple[Recipe, Lines]:
    """Returns the recipe in a file, ready to run, and the line of every value for messages about a stage that fails.

    own_task: where the recipe's task comes from, if it is the user's own; the returned recipe holds this note.
    changes: the values that take the place of the file's.
    may_be_unknown: whether a task that is not built in is taken for the user's own without such a note.

    Raises:
        RecipeError: the recipe has faults, or its task is unknown; the message holds all of them.
        UserError: a change cannot be made in this recipe.
    """

    def completed(recipe: Recipe) -> Recipe:
        return recipe if own_task is None else recipe.of_own_task(own_task)

    def is_own(task: str) -> bool:
        return own_task is not None or (may_be_unknown and task not in TASKS)

    def faults(recipe: Recipe) -> list[Fault]:
        if is_own(recipe.task_name):
            return check_named(recipe.of_own_task(own_task or TaskOrigin()))
        return check_named(recipe)

    recipe, lines = read_settings(
        Path(path),
        Recipe,
        faults,
        changes=changes,
        check_form=_form_faults,
        check_sound_parts=lambda data: _checks_of_what_is_valid(data, is_own),
    )
    return completed(recipe), lines


def dump_recipe(recipe: Recipe) -> str:
    """Returns the recipe as YAML with all defaults written out; `load_recipe` reads it back as an equal recipe."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # declared as None only
    text = io.StringIO()
    writer.dump(recipe.model_dump(mode="json"), text)
    return text.getvalue()


def _form_faults(data: dict[str, Any]) -> list[Fault]:
    """Returns the fault of a `version` that is written as 1.0 or true, which pydantic does not see."""
    version = data.get("version", RECIPE_VERSION)
    if version == RECIPE_VERSION and type(version) is not int:
        return [Fault(("version",), f"{shown(version)} is not a choice; choose one of: {RECIPE_VERSION}")]
    return []


def _checks_of_what_is_valid(data: dict[str, Any], is_own: Callable[[str], bool]) -> list[Fault]:
    """Returns the faults of meaning in the well-formed parts of a recipe that has faults of form."""
    return [*_checks_of_stages(data, is_own), *_checks_of_measure(data)]


def _checks_of_measure(data: dict[str, Any]) -> list[Fault]:
    try:
        measure = Measure.model_validate(data.get("measure", {}))
    except ValidationError:  # reported already
        return []
    device = data.get("device", Recipe.model_fields["device"].default)
    return check_measure(measure, device) if device in ("cpu", "cuda") else []


def _checks_of_stages(data: dict[str, Any], is_own: Callable[[str], bool]) -> list[Fault]:
    task, stages = data.get("task"), data.get("stages")
    sound: dict[int, Stage] = {}
    for index, item in enumerate(stages if isinstance(stages, list) else []):
        try:
            sound[index] = TypeAdapter[Stage](Stage).validate_python(item)
        except ValidationError:
            continue  # reported already, as part of the whole recipe
    try:
        reference = TypeAdapter[TaskReference](TaskReference).validate_python(task)
    except ValidationError:  # reported already
        return check_stages(sound, None)
    if is_own(task_name(reference)) or isinstance(data.get("own_task"), dict):
        return check_own_task(task_name(reference)) + check_stages(sound, None)
    faults = check_task(reference)
    if not faults:
        with contextlib.suppress(ValidationError):
            model = data.get("model")
            faults = check_model(task_name(reference), None if model is None else ZooModel.model_validate(model))
    return faults + check_stages(sound, card_of(reference))
