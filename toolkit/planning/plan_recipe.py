"""A budget into a recipe, in one call."""

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
    """The recipe of the best plan found within the budget. Gathers the tables first, in the folder where they are kept.

    `recover` goes last, if given. `model` goes with task `zoo`. `settings` say how the model is timed and scored; the
    budget's batch size and threads are added to them.

    Raises:
        UserError: the budget cannot be held, or what is kept in the tables is damaged or of another model or machine.
    """
    known = make_task(task, model) if isinstance(task, str) else task
    settings = settings or PlanSettings()
    of_budget = replace(settings.timed_for([budget]), threads=budget.threads)
    planned = open_session(known, of_budget, console=console).plan(budget, family, evaluations, recover=recover)
    return planned.recipe(() if recover is None else (recover,), seed=seed, model=model)
