"""The first step of a run: the model is looked at before any work is done."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.checkpoint.trial import check_saving
from toolkit.hooks.paths import Path
from toolkit.hooks.repeats import why_not_repeatable
from toolkit.preflight.look import preflight_of
from toolkit.preflight.report import Preflight, Question
from toolkit.preflight.words import one_line_of, refusal_of
from toolkit.recipe.recipe import Recipe
from toolkit.tasks.task import Task
from toolkit.tasks.ways import paths_of


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


def tell_folded(folded: Mapping[str, str], console: Console) -> None:
    """Says which tensors are plain parameters from here on; `folded` is what `folded_task` gives."""
    for kind in dict.fromkeys(folded.values()):
        names = ", ".join(name for name, own in folded.items() if own == kind)
        console.line(f"folded: {names}: computed by {kind} so far, parameters of their own from here on")


def check_baseline(task: Task, dense: nn.Module, inputs: tuple[Tensor, ...], console: Console) -> None:
    """Checks what would otherwise be found after all the work: that the model repeats itself, and can be saved.

    Raises:
        UserError: it does not, or cannot.
    """
    fault = why_not_repeatable(dense, Path(inputs))
    if fault is not None:
        raise UserError(
            f"task {task.name!r}: {fault}; no cut could be proved and no saved model recognised: make it compute the "
            "same for the same inputs in eval mode"
        )
    check_saving(dense, task.build_model().cpu(), inputs)
    for words in paths_of(task, dense, inputs[0].device).refused:
        console.line(f"{words}, so that nothing is proved for it")
