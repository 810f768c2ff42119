"""Holds the settings of a sweep: variants of stages times seeds, where each cell is a recipe. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from toolkit.base.errors import Fault, RecipeError, UserError
from toolkit.base.settings import Positive, Settings, Version
from toolkit.planning.budget import Budget, parse_limits
from toolkit.planning.search.refine import EVALUATIONS, EXAMPLES
from toolkit.planning.search.solver import FAMILIES, PlanFamily
from toolkit.recipe.changes import ChangedValue
from toolkit.recipe.check import card_of, check_measure, check_model, check_stages, check_task
from toolkit.recipe.faults import plain_faults
from toolkit.recipe.read_settings import read_settings
from toolkit.recipe.recipe import KeepStages, Measure, Recipe
from toolkit.record.plan import CRITERIA, SCORED_ON, Criterion, ScoredOn
from toolkit.stages.settings import Stage
from toolkit.tasks.cards import any_model_task
from toolkit.tasks.contract import TaskSettings
from toolkit.tasks.reference import TaskReference, task_name
from toolkit.zoo.settings import ZooModel

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$")]


class SeededTask(Settings):
    """States one column of the sweep: the seed of the stages, and the task whose baseline they start from.

    task: the name of the task, or a mapping of its settings, as in a recipe; a relative path in it starts from the
        sweep's folder.
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    task: TaskReference


class Plans(Settings):
    """States the cells to plan: every family with every budget.

    budgets: limits such as `latency=0.5`, one per budget.
    batch_size: examples per call of the latency that is limited.
    evaluations: plans scored end to end for one axis, six times as many for the combined family.
    examples: the number of examples that plans are scored on, and that they are repaired on.
    criterion: the figure that plans are compared by.
    scored_on: the data that the criterion is computed on.
    then: the stages that follow those of the plan.
    """

    families: Annotated[tuple[PlanFamily, ...], Field(min_length=1, strict=False)] = FAMILIES
    budgets: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    batch_size: Positive = 1
    evaluations: Annotated[int, Field(ge=0)] = EVALUATIONS
    examples: Positive = EXAMPLES
    criterion: Criterion = CRITERIA[0]
    scored_on: ScoredOn = SCORED_ON[0]
    then: Annotated[tuple[Stage, ...], Field(strict=False)] = ()


@dataclass(frozen=True)
class PlannedCell:
    """Describes a run whose stages are planned just before it starts."""

    task: str | TaskSettings
    seed: int
    family: PlanFamily
    budget: Budget


class Sweep(Settings):
    """States a sweep: every plan and every variant is run for every seed, in the order of the file.

    device: the device that all cells run on and are measured on.
    model: the zoo model, for task `zoo` alone.
    plans: cells whose stages are planned for a budget.
    variants: the stages of each variant, by its name.
    measure: what is measured after every stage.
    keep_stages: the models of each run that stay on disk: `all` or `last`, as in a recipe.
    """

    version: Version = 1
    name: Name
    device: Literal["cpu", "cuda"] = "cpu"
    model: ZooModel | None = None
    seeds: Annotated[tuple[SeededTask, ...], Field(min_length=1, strict=False)]
    plans: Plans | None = None
    variants: Annotated[dict[Name, Annotated[tuple[Stage, ...], Field(strict=False)]], Field(default_factory=dict)]
    measure: Measure = Measure()
    keep_stages: KeepStages = "all"

    @model_validator(mode="after")
    def _something_to_run(self) -> Sweep:
        if self.plans is None and not self.variants:
            raise ValueError("a sweep needs something to run; give variants, plans or both")
        return self

    def planned_cells(self) -> list[tuple[str, PlannedCell]]:
        """Returns (folder below the sweep's, cell) for each cell that is planned, budget after budget."""
        if self.plans is None:
            return []
        cells = []
        for word in self.plans.budgets:
            limits = parse_limits([word])
            budget = Budget(limits=limits, batch_size=self.plans.batch_size, threads=self.measure.threads)
            for family in self.plans.families:
                for column in self.seeds:
                    cell = PlannedCell(column.task, column.seed, family, budget)
                    cells.append((f"{family}_{limits[0].value:g}/seed{column.seed}", cell))
        return cells

    def cells(self) -> list[tuple[str, Recipe]]:
        """Returns (folder below the sweep's, recipe) for each run of a variant, in the order of the runs."""
        return [
            (
                f"{variant}/seed{column.seed}",
                Recipe(
                    name=f"{variant}-seed{column.seed}",
                    task=column.task,
                    seed=column.seed,
                    device=self.device,
                    model=self.model,
                    stages=stages,
                    measure=self.measure,
                    keep_stages=self.keep_stages,
                ),
            )
            for variant, stages in self.variants.items()
            for column in self.seeds
        ]


def read_sweep(
    path: Path, own_task: str | None = None, changes: Sequence[ChangedValue] = (), seed: ChangedValue | None = None
) -> Sweep:
    """Returns the sweep in a file, which is read as strictly as a recipe.

    own_task: the name of the user's own task, if there is one; the sweep uses it.
    changes: the values that take the place of the file's.
    seed: the one seed to run with; None stands for the file's seeds.

    Raises:
        RecipeError: the file has faults; the message holds all of them with their lines.
        UserError: a change cannot be made in this sweep, or the seed has no task.
    """
    sweep = read_settings(path, Sweep, lambda sweep: _faults(sweep, own_task), changes=changes)[0]
    return sweep if seed is None else _of_seed(sweep, seed)


def _of_seed(sweep: Sweep, seed: ChangedValue) -> Sweep:
    """Returns the sweep with one seed alone; a seed that is not in the file goes with the task of all others."""
    try:
        SeededTask.model_validate({"seed": seed.value, "task": sweep.seeds[0].task})
    except ValidationError as error:
        faults = [replace(fault, argument=seed.argument) for fault in plain_faults(error, SeededTask)]
        raise RecipeError(faults) from error
    found = [column for column in sweep.seeds if column.seed == seed.value]
    tasks = list(dict.fromkeys(column.task for column in sweep.seeds))
    if not found and len(tasks) > 1:
        known = ", ".join(str(column.seed) for column in sweep.seeds)
        raise UserError(f"{seed.argument}: the sweep has a task for each of its seeds, and these are: {known}")
    columns = tuple(found) or (SeededTask(seed=seed.value, task=tasks[0]),)
    return sweep.model_copy(update={"seeds": columns})


def _faults(sweep: Sweep, own_task: str | None) -> list[Fault]:
    """Faults of meaning: each variant is checked once per task, and reported once."""
    faults: dict[Fault, None] = {}
    seeds = [column.seed for column in sweep.seeds]
    if own_task is not None and own_task not in {column.task for column in sweep.seeds}:
        faults[Fault(("seeds",), f"the task of your file is {own_task!r}, but no seed has it")] = None
    for index, column in enumerate(sweep.seeds):
        for fault in [] if column.task == own_task else check_task(column.task):
            faults[Fault(("seeds", index, *fault.path), fault.message)] = None
        for fault in check_model(task_name(column.task), sweep.model):
            faults[fault] = None
        if seeds.index(column.seed) != index:
            faults[Fault(("seeds", index, "seed"), f"{column.seed} is given twice; give each seed once")] = None
    try:
        folders = [folder for folder, _ in sweep.planned_cells()]
        for folder in {folder for folder in folders if folders.count(folder) > 1}:
            message = f"{folder.partition('/')[0]} is planned twice; give budgets of different values"
            faults[Fault(("plans", "budgets"), message)] = None
    except UserError as error:
        faults[Fault(("plans", "budgets"), str(error).removeprefix("--budget "))] = None
    if sweep.plans is not None and sweep.model is not None:
        message = f"cannot be planned for task {any_model_task().name}; give variants instead"
        faults[Fault(("plans",), message)] = None
    for folder, recipe in sweep.cells():
        for fault in check_stages(dict(enumerate(recipe.stages)), card_of(recipe.task)):
            faults[Fault(("variants", folder.partition("/")[0], *fault.path[1:]), fault.message)] = None
    return [*faults, *check_measure(sweep.measure, sweep.device)]
