"""Reads a recipe from strict YAML; all faults are reported at once, with file, line and the legal choices."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from toolkit.base.errors import Fault
from toolkit.recipe.check import card_of, check_model, check_named, check_stages, check_task
from toolkit.recipe.faults import shown
from toolkit.recipe.read_settings import read_settings
from toolkit.recipe.recipe import RECIPE_VERSION, Recipe
from toolkit.recipe.yaml_nodes import Lines
from toolkit.stages.settings import Stage
from toolkit.tasks.reference import TaskReference, task_name
from toolkit.zoo.settings import ZooModel


def load_recipe(path: Path | str) -> Recipe:
    """Returns the recipe in the file at `path`, validated and checked.

    Raises:
        RecipeError: the recipe has faults; the message holds all of them. A file that is not YAML has one fault alone.
    """
    return read_recipe(path)[0]


def read_recipe(path: Path | str) -> tuple[Recipe, Lines]:
    """Returns the recipe as `load_recipe` does, and the line of every value for messages about a stage that fails."""
    return read_settings(
        Path(path), Recipe, check_named, check_form=_form_faults, check_sound_parts=_checks_of_what_is_valid
    )


def dump_recipe(recipe: Recipe) -> str:
    """Returns the recipe as YAML with all defaults written out; `load_recipe` reads it back as an equal recipe."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # declared as None only
    text = io.StringIO()
    writer.dump(recipe.model_dump(mode="json"), text)
    return text.getvalue()


def _form_faults(data: dict[str, Any]) -> list[Fault]:
    """Returns faults that pydantic lets pass: a missing `version`, which has a default in Python, and 1.0 or true."""
    if "version" not in data:
        return [Fault(("version",), f"missing; the keys here are: {', '.join(Recipe.model_fields)}")]
    version = data["version"]
    if version == RECIPE_VERSION and type(version) is not int:
        return [Fault(("version",), f"{shown(version)} is not a choice; choose one of: {RECIPE_VERSION}")]
    return []


def _checks_of_what_is_valid(data: dict[str, Any]) -> list[Fault]:
    """Returns the faults of meaning in the well-formed parts of a recipe that has faults of form."""
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
    faults = check_task(reference)
    if not faults:
        with contextlib.suppress(ValidationError):
            model = data.get("model")
            faults = check_model(task_name(reference), None if model is None else ZooModel.model_validate(model))
    return faults + check_stages(sound, card_of(reference))
