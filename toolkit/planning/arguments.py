"""Holds the arguments of the command line that planning, profiling and searches share. Nothing here imports torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toolkit.base.command import finite, not_negative, positive
from toolkit.base.errors import UserError
from toolkit.base.words import did_you_mean
from toolkit.planning.search.refine import EVALUATIONS, EXAMPLES, ROUND_TO
from toolkit.planning.search.runoff import FINALISTS
from toolkit.planning.search.solver import FAMILIES
from toolkit.planning.settings import PlanSettings
from toolkit.recipe.given import TaskOfRecipe, task_of_recipe
from toolkit.recipe.recipe import Recipe
from toolkit.record.plan import CRITERIA, SCORED_ON
from toolkit.tasks.cards import make_task, own_model_tasks
from toolkit.tasks.origin import TaskOrigin
from toolkit.tasks.task_file import add_task_file_argument, given_task_file

if TYPE_CHECKING:
    from toolkit.tasks.task import Task

DESCRIPTION = (
    "Plan a recipe for a budget. Where a latency is limited, the first plan of a model times all of its blocks and "
    "widths, which takes minutes for tad-watch on two idle CPU cores and longer for larger models. Later plans reuse "
    "the numbers kept in --tables. A budget of macs or params alone needs no timing."
)


def check_tasks(names: list[str]) -> None:
    """Raises UserError where a name is not one of the tasks that bring their own model."""
    choices = own_model_tasks()
    for name in names:
        if name not in choices:
            raise UserError(
                f"{name!r} is not a known task; {did_you_mean(name, choices)}choose one of: {', '.join(choices)} "
                "(your own: --task FILE.py, or a recipe FILE.yaml)"
            )


class GivenTask(NamedTuple):
    """Holds a task, where it comes from if it is the user's own, and what a recipe says of it if one does."""

    task: Task
    origin: TaskOrigin | None
    of_recipe: TaskOfRecipe | None

    def in_recipe(self, recipe: Recipe, file: Path) -> Recipe:
        """Returns the planned recipe with what must be said of the task; `file` is where the recipe will be."""
        if self.origin is not None:
            return recipe.of_own_task(self.origin)
        return recipe if self.of_recipe is None else self.of_recipe.in_recipe(recipe, file)


def given_task(args: argparse.Namespace) -> GivenTask:
    """Returns the task of the arguments below.

    Raises:
        UserError: not one of TASK and --task is given, the task is not known, or the user's file makes none.
    """
    file = given_task_file(args)
    if (args.task is None) == (file is None):
        raise UserError("give either the name of a task, such as tad-watch, or --task FILE.py with one of your own")
    if file is not None:
        return GivenTask(file.make(), file.origin, None)
    of_recipe = task_of_recipe(args.task)
    if of_recipe is not None:
        return GivenTask(make_task(*of_recipe), None, of_recipe)
    check_tasks([args.task])
    return GivenTask(make_task(args.task), None, None)


def settings_of(args: argparse.Namespace) -> PlanSettings:
    """Returns the settings that the parsed arguments give; settings that the command does not offer are at default."""
    scoring = {
        name: getattr(args, name)
        for name in ("examples", "criterion", "scored_on", "rebuild", "round_to", "num_finalists", "bypass")
        if name in args
    }
    sizes = None if args.batch_sizes is None else tuple(args.batch_sizes)
    tables = {} if args.tables is None else {"tables": args.tables}
    return PlanSettings(device=args.device, batch_sizes=sizes, threads=args.threads, **tables, **scoring)


def add_session_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that planning and profiling share."""
    parser.add_argument(
        "task",
        metavar="TASK",
        nargs="?",
        help="name of a built-in task, such as tad-watch, or a recipe (FILE.yaml), whose task is taken",
    )
    add_task_file_argument(parser)
    add_timing_arguments(parser)
    parser.add_argument(
        "--round-to",
        type=positive,
        default=ROUND_TO,
        metavar="N",
        help="try only widths that are multiples of N (default: %(default)s)",
    )
    parser.add_argument(
        "--no-bypass",
        dest="bypass",
        action="store_false",
        help="only keep or drop blocks (default: also try a fitted linear map in the place of a block)",
    )
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="score and time everything again (default: use the numbers kept in --tables)",
    )


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say what a plan may take, what it must keep, and how it is searched for."""
    parser.add_argument(
        "--budget",
        nargs="+",
        required=True,
        metavar="WHAT=LIMIT",
        help="limits of the plan, as shares of the dense model's or, for latency, in ms per call; such as latency=0.5, "
        "latency=12ms, macs=0.6 or params=0.4",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=1,
        metavar="N",
        help="examples per call of the latency that --budget limits; it is timed even where --batch-sizes leaves it "
        "out (default: %(default)s)",
    )
    parser.add_argument(
        "--min-quality",
        type=finite,
        metavar="X",
        help="least value of the task's metric on validation data, after repair and before fine-tuning (default: none)",
    )
    parser.add_argument(
        "--family",
        choices=FAMILIES,
        default="combined",
        help="cuts to plan with: both kinds or one (default: combined)",
    )
    parser.add_argument(
        "--evaluations",
        type=not_negative,
        default=EVALUATIONS,
        metavar="N",
        help="plans scored end to end for one axis, six times as many for both; 0: tables alone (default: %(default)s)",
    )
    parser.add_argument(
        "--finalists",
        type=not_negative,
        default=FINALISTS,
        dest="num_finalists",
        metavar="N",
        help="best plans of every family that are judged once more on fresh data, after the first tenth of the "
        "fine-tuning; 0: none (default: %(default)s)",
    )


def add_timing_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how latency is measured and where the measured numbers are kept."""
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device that latency is measured on (default: cpu)"
    )
    parser.add_argument(
        "--batch-sizes",
        type=positive,
        nargs="+",
        metavar="N",
        help="time calls of N examples, for each N, and predict the plan's latency for all of them, limited or not "
        "(default: 1 16, or no timing where the budget limits no latency)",
    )
    parser.add_argument(
        "--threads", type=positive, default=2, metavar="N", help="time with N CPU threads (default: %(default)s)"
    )
    parser.add_argument(
        "--tables", type=Path, metavar="DIR", help="folder that keeps scores and timings (default: runs/tables)"
    )


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say what plans are compared by."""
    parser.add_argument(
        "--examples",
        type=positive,
        default=EXAMPLES,
        metavar="N",
        help="score plans on N examples and repair them on N others (default: %(default)s)",
    )
    parser.add_argument(
        "--criterion",
        choices=CRITERIA,
        default=CRITERIA[0],
        help="compare plans by the task's loss, or by the distance to the dense model's predictions, which needs no "
        "labels (default: %(default)s)",
    )
    parser.add_argument(
        "--scored-on",
        choices=SCORED_ON,
        default=SCORED_ON[0],
        help="compute the criterion on training or on validation data (default: %(default)s)",
    )
