"""A budget into a recipe, in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from toolkit.console import Console
from toolkit.planning.budget import Budget
from toolkit.planning.search import EVALUATIONS, EXAMPLES
from toolkit.planning.session import open_session
from toolkit.planning.solver import PlanFamily
from toolkit.planning.tables import CRITERIA, SCORED_ON, Criterion, ScoredOn
from toolkit.recipe import Recipe
from toolkit.stage_configs import Recover
from toolkit.task import Task
from toolkit.tasks import make_task
from toolkit.zoo.config import ZooModel


def plan_recipe(
    task: Task | str,
    budget: Budget,
    *,
    family: PlanFamily = "combined",
    recover: Recover | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    batch_sizes: tuple[int, ...] = (1, 16),
    evaluations: int = EVALUATIONS,
    tables: Path | None = None,
    rebuild: bool = False,
    examples: int = EXAMPLES,
    criterion: Criterion = CRITERIA[0],
    scored_on: ScoredOn = SCORED_ON[0],
    model: ZooModel | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> Recipe:
    """The recipe of the best plan found within the budget. Gathers the tables first, in `tables`, where they are kept.

    `recover` goes last, if given. Latency is timed at `batch_sizes` and the budget's. `model` goes with task `zoo`.
    `criterion` and `scored_on`: what plans are compared by (`toolkit.planning.tables`).

    Raises:
        UserError: the budget cannot be held, or what is kept in `tables` is damaged or of another model or machine.
    """
    known = make_task(task, model) if isinstance(task, str) else task
    session = open_session(
        known,
        device=device,
        batch_sizes=(*batch_sizes, budget.batch_size),
        threads=budget.threads,
        folder=tables,
        rebuild=rebuild,
        examples=examples,
        criterion=criterion,
        scored_on=scored_on,
        console=console,
    )
    planned = session.plan(budget, family, evaluations)
    return planned.recipe(() if recover is None else (recover,), seed=seed, model=model)
