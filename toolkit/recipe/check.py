"""Finds faults of meaning: a well-formed recipe may still ask for what cannot be done. Nothing here imports torch.

A stage that cannot change the model is a fault, before anything runs, unless the stage says `allow_no_change`.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.base.errors import Fault, UserError
from toolkit.base.words import did_you_mean
from toolkit.measure.possible import faults_of
from toolkit.recipe.faults import shown
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.contract import StageSettings
from toolkit.stages.settings import Stage
from toolkit.tasks.cards import TASKS, any_model_task
from toolkit.tasks.contract import TaskCard, TaskSettings
from toolkit.tasks.reference import task_name
from toolkit.zoo.names import argument_faults, split_name
from toolkit.zoo.settings import ZooModel

OWN = "your own: give its file with --task FILE.py"


def check(recipe: Recipe, card: TaskCard | None) -> list[Fault]:
    """Returns all faults of meaning, without lines.

    card: the task's card; None for a user's own task, for which only what holds for every task is checked.
    """
    return check_stages(dict(enumerate(recipe.stages)), card) + check_measure(recipe.measure, recipe.device)


def check_measure(measure: Measure, device: str) -> list[Fault]:
    """Returns a fault for each runtime and for each precision that this type of device does not support.

    Compilers, packages and the GPU's compute capability are looked up on this machine; a missing GPU is not a fault.
    """
    faults = faults_of(measure.runtimes, measure.precisions, device)
    return [Fault(("measure", *place), message) for place, message in faults]


def check_named(recipe: Recipe) -> list[Fault]:
    """Returns all faults of a recipe, without lines; its task may be a built-in one or the user's own."""
    if recipe.own_task is not None:
        return check_own_task(recipe.task_name, recipe.model) + check(recipe, None)
    faults = check_task(recipe.task)
    if recipe.task_name not in TASKS:
        return faults
    return faults + check_model(recipe.task_name, recipe.model) + check(recipe, card_of(recipe.task))


def card_of(task: str | TaskSettings) -> TaskCard | None:
    """Returns the card of a task, completed by the task's settings; None for a user's own task."""
    card = TASKS.get(task_name(task))
    return card if card is None or isinstance(task, str) else task.card(card)


def check_same_task(of_file: str, given: str, what: str = "the recipe") -> None:
    """Raises UserError unless the task of a file is the one that was given with it; `what` is the file in words."""
    if of_file != given:
        raise UserError(f"{what} is for task {of_file!r}, but the task given is {given!r}")


def check_own_task(task: str, model: ZooModel | None = None) -> list[Fault]:
    """Returns the faults of a recipe for the user's own task, as far as they show without that task."""
    if task in TASKS:
        return [Fault(("task",), f"{shown(task)} is built in, so own_task says nothing about it; leave own_task out")]
    return check_model(task, model)


def check_task(task: str | TaskSettings) -> list[Fault]:
    """Returns the faults of a recipe's `task`: an unknown name, missing settings, or settings that are wrong."""
    name = task_name(task)
    if name not in TASKS:
        hint = did_you_mean(name, TASKS)
        return [Fault(("task",), f"{shown(name)} is not a known task; {hint}choose one of: {', '.join(TASKS)}; {OWN}")]
    if not isinstance(task, str):
        return [Fault(("task", *place), message) for place, message in task.faults()]
    settings = TASKS[name].settings
    if settings is None:
        return []
    keys = ", ".join(settings.model_fields)
    return [Fault(("task",), f'task "{name}" has settings; give a mapping with its keys: {keys}')]


def check_model(task: str, model: ZooModel | None) -> list[Fault]:
    """Returns the faults of a recipe's `model` that show without the zoo's library."""
    takes_model = task in TASKS and TASKS[task].takes_model
    if model is None:
        example = "name: torchvision/resnet18"
        return [Fault(("model",), f"missing; task {task} needs a model ({example})")] if takes_model else []
    if not takes_model:
        other = any_model_task().name
        return [Fault(("model",), f"task {shown(task)} has its own model; leave model out, or set task: {other}")]
    try:
        library, _ = split_name(model.name)
    except ValueError as error:
        return [Fault(("model", "name"), str(error))]
    faults = argument_faults(library, model.arguments)
    return [Fault(("model", "arguments", *([key] if key else [])), message) for key, message in faults]


def check_stages(stages: Mapping[int, Stage], card: TaskCard | None) -> list[Fault]:
    """Returns the faults of meaning of some of a recipe's stages; the other stages have faults of form.

    stages: the stages by their index in the recipe, in order.
    card: the task's card; None for a user's own task.
    """
    faults: list[Fault] = []
    earlier: dict[int, StageSettings] = {}
    for index, stage in stages.items():
        faults += [Fault(("stages", index, *place), message) for place, message in stage.faults(card, dict(earlier))]
        earlier[index] = stage
    return faults
