"""Plans a recipe for a budget in one call."""

from __future__ import annotations

from dataclasses import replace

from toolkit.base.console import Console
from toolkit.planning.budget import Budget
from toolkit.planning.search.refine import EVALUATIONS
from toolkit.planning.search.solver import PlanFamily
from toolkit.planning.session import open_session
from toolkit.planning.settings import PlanSettings
from toolkit.recipe.recipe import Recipe
from toolkit.stages.recover.settings import Recover
from toolkit.tasks.cards import make_task
from toolkit.tasks.task import Task
from toolkit.zoo.settings import ZooModel


def plan_recipe(
    task: Task | str,
    budget: Budget,
    *,
    family: PlanFamily = "combined",
    evaluations: int = EVALUATIONS,
    recover: Recover | None = None,
    model: ZooModel | None = None,
    seed: int = 0,
    settings: PlanSettings | None = None,
    console: Console | None = None,
) -> Recipe:
    """Returns the recipe of the best plan found within the budget; scores and times the model first where needed.

    task: a task, or the name of one that comes with the toolkit.
    family: the axes that may be cut: `depth`, `width` or `combined`.
    evaluations: plans scored end to end for one axis, six times as many for `combined`; 0 uses the tables alone.
    recover: the recovery that becomes the last stage of the recipe; None adds none.
    model: the zoo model, for task `zoo` alone.
    seed: the seed that the recipe gets.
    settings: how the model is timed and scored; the budget's batch size and threads are added.

    Raises:
        PlanError: no plan of the family holds the budget.
        UserError: the kept tables are damaged, or were made of another model or on another machine.
    """
    task = make_task(task, model) if isinstance(task, str) else task
    settings = settings or PlanSettings()
    of_budget = replace(settings.timed_for([budget]), threads=budget.threads)
    planned = open_session(task, of_budget, console=console).plan(budget, family, evaluations, recover=recover)
    return planned.recipe(() if recover is None else (recover,), seed=seed, model=model)
