"""Finds the model that a name stands for, with its task: built-in, of a zoo, of a run, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from toolkit.base.errors import UserError
from toolkit.base.words import did_you_mean
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.manifest import MANIFEST_FILE
from toolkit.recipe.given import task_of_recipe
from toolkit.record.run import RUN_FILE, load_record
from toolkit.tasks.cards import TASKS, any_model_task, make_task, own_model_tasks
from toolkit.tasks.origin import TaskOrigin
from toolkit.tasks.task import Task
from toolkit.tasks.task_file import TaskFile
from toolkit.zoo.settings import ZooModel


class InspectedModel(NamedTuple):
    """Holds the name, the task and the model to inspect; a model of None stands for the task's own."""

    name: str
    task: Task
    model: nn.Module | None


def find_model(
    name: str | None,
    file: TaskFile | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    input_size: int | None = None,
) -> InspectedModel:
    """Returns what a name stands for: a task, a model of a zoo, or the compressed model of a run.

    name: `tad-watch`, `timm/NAME`, the folder of a run, or the file of a recipe, whose task is taken; None stands for
        the task of `file`.
    file: the file of the user's own task, which the run was made for.
    arguments: keyword arguments of a zoo model.
    input_size: the side of a zoo model's images in pixels, or its number of tokens or samples.

    Raises:
        UserError: the name stands for no model, or for one that cannot be built.
    """
    if file is None and name is None:
        raise UserError("give a MODEL, or --task FILE.py with a task of your own")
    if name is not None and Path(name).is_dir():
        return _saved(Path(name), file)
    if file is not None:
        if name is not None:
            raise UserError(f"{name!r} is not the folder of a run; with --task give such a folder, or no MODEL")
        return InspectedModel(str(file.path), file.make(), None)
    assert name is not None
    if name in own_model_tasks():
        return InspectedModel(name, make_task(name), None)
    of_recipe = task_of_recipe(name)
    if of_recipe is not None:
        return InspectedModel(name, make_task(*of_recipe), None)
    if "/" in name:
        chosen = ZooModel(name=name, arguments=dict(arguments or {}), input_size=input_size)
        return InspectedModel(name, make_task(any_model_task().name, chosen), None)
    tasks = own_model_tasks()
    raise UserError(
        f"{name!r} is no task, no zoo model and no folder; {did_you_mean(name, tasks)}choose one of: "
        f"{', '.join(tasks)}, timm/NAME, torchvision/NAME, transformers/TYPE, the folder of a run, a recipe "
        "(FILE.yaml), or --task FILE.py"
    )


def _saved(folder: Path, file: TaskFile | None) -> InspectedModel:
    """Returns the compressed model of a run, with its task."""
    if not (folder / RUN_FILE).exists():
        reason = (
            "a saved model alone holds no inputs to inspect it with" if (folder / MANIFEST_FILE).exists() else "no run"
        )
        raise UserError(f"{folder}: has no {RUN_FILE} ({reason}); give the folder of a run, a task or a zoo model")
    recipe = load_record(folder).recipe
    if file is not None:
        task = file.make()
        if task.name != recipe.task_name:
            raise UserError(f"{folder}: was made for task {recipe.task_name!r}, but {file.path} makes {task.name!r}")
        return InspectedModel(str(folder), task, load_model(folder, task.build_model()))
    if recipe.task_name not in TASKS:
        origin = recipe.own_task or TaskOrigin()
        raise UserError(
            f"{folder}: was made for the task {recipe.task_name!r}, which is your own; {origin.how_to_give}"
        )
    # the weights that the run began with may be anywhere; what is inspected are those that it ended with
    model = None if recipe.model is None else recipe.model.without_weights()
    return InspectedModel(str(folder), make_task(recipe.task, model, folder), load_model(folder))
