"""Checks a run's model before any work is done."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.checkpoint.trial import check_saving
from toolkit.hooks.paths import Path
from toolkit.hooks.repeats import why_not_repeatable
from toolkit.preflight.fits import check_fits
from toolkit.preflight.look import preflight_of
from toolkit.preflight.report import Preflight, Question
from toolkit.preflight.words import one_line_of, refusal_of
from toolkit.recipe.recipe import Recipe
from toolkit.tasks.cards import TASKS
from toolkit.tasks.overlap import check_splits
from toolkit.tasks.task import Task
from toolkit.tasks.ways import paths_of


def look_before(recipe: Recipe, task: Task, dense: nn.Module, console: Console) -> Preflight:
    """Returns the preflight of the unmodified model `dense`; only blocks and channels that the recipe cuts are tried.

    Raises:
        UserError: something is in the way of every run, or of the training in the recipe, or splits of a task of the
            user's own share examples.
        StageError: a stage drops more blocks than there are.
    """
    if task.name not in TASKS:
        check_splits(task)
    cuts: dict[str, Question] = {"depth": "blocks", "width": "channels"}
    parts = [cuts[axis] for axis in dict.fromkeys(stage.axis for stage in recipe.stages) if axis in cuts]
    preflight = preflight_of(task, dense, parts=parts)
    console.line(one_line_of(preflight))
    in_the_way = preflight.in_the_way(trains=recipe.trains)
    if in_the_way:
        raise UserError(refusal_of(in_the_way, preflight.batch_size))
    check_fits(recipe, preflight)
    return preflight


def tell_folded(folded: Mapping[str, str], console: Console) -> None:
    """Prints which computed tensors become plain parameters.

    folded: by the name of the tensor, what has computed it so far; `folded_task` gives this.
    """
    for kind in dict.fromkeys(folded.values()):
        names = ", ".join(name for name, computed_by in folded.items() if computed_by == kind)
        console.line(f"folded: {names}: computed by {kind} so far, plain parameters from here on")


def check_baseline(task: Task, dense: nn.Module, inputs: tuple[Tensor, ...], console: Console) -> None:
    """Checks that the model repeats itself and can be saved, which would otherwise show after all the work.

    Raises:
        UserError: two passes differ, or the model cannot be saved and loaded.
    """
    fault = why_not_repeatable(dense, Path(inputs))
    if fault is not None:
        raise UserError(
            f"task {task.name!r}: {fault}; so no cut could be proved and no saved model recognised; make the model "
            "compute the same for the same inputs in eval mode"
        )
    check_saving(dense, task.build_model().cpu(), inputs)
    for words in paths_of(task, dense, inputs[0].device).refused:
        console.line(f"{words}, so nothing is proved for it")
