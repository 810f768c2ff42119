"""The first step of a run: the model is looked at before any work is done."""

from __future__ import annotations

from torch import nn

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.preflight.look import preflight_of
from toolkit.preflight.report import Preflight, Question
from toolkit.preflight.words import one_line_of, refusal_of
from toolkit.recipe.recipe import Recipe
from toolkit.tasks.task import Task


def look_before(recipe: Recipe, task: Task, dense: nn.Module, console: Console) -> Preflight:
    """Returns the preflight of the unmodified model `dense`, with those parts that the recipe cuts.

    Raises:
        UserError: something is in the way of every run, or of the training that the recipe asks for.
    """
    cuts: dict[str, Question] = {"depth": "blocks", "width": "channels"}
    parts = [cuts[axis] for axis in dict.fromkeys(stage.axis for stage in recipe.stages) if axis in cuts]
    found = preflight_of(task, dense, parts=parts)
    console.line(one_line_of(found))
    in_the_way = found.in_the_way(trains=recipe.trains)
    if in_the_way:
        raise UserError(refusal_of(in_the_way, found.batch_size))
    return found
