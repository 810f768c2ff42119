"""What `python -m toolkit.sweep` is told: variants of stages times seeds, each cell a recipe. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from toolkit.check import check, check_model, check_task
from toolkit.config import Config
from toolkit.errors import Fault, RecipeError
from toolkit.plain_faults import plain_faults
from toolkit.recipe import Measure, Recipe, Stage, Version
from toolkit.tasks import TASKS
from toolkit.yaml_nodes import read_yaml
from toolkit.zoo.config import ZooModel

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$")]


class SeededTask(Config):
    """One column of the sweep: a seed for the stages, and the task whose baseline goes with it."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    task: Annotated[str, Field(min_length=1)]


class Sweep(Config):
    """Every variant is run for every seed, in the order of the file, all seeds of a variant in a row."""

    version: Version
    name: Name
    device: Literal["cpu", "cuda"]
    model: ZooModel | None = None
    seeds: Annotated[tuple[SeededTask, ...], Field(min_length=1, strict=False)]
    variants: Annotated[dict[Name, Annotated[tuple[Stage, ...], Field(strict=False)]], Field(min_length=1)]
    measure: Measure

    def cells(self) -> list[tuple[str, Recipe]]:
        """(folder below the sweep's, recipe) of every run, in the order in which they are run."""
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
                ),
            )
            for variant, stages in self.variants.items()
            for column in self.seeds
        ]


def read_sweep(path: Path) -> Sweep:
    """Read a sweep, with the same strictness as recipes.

    Raises:
        RecipeError: with every fault, its file and line.
    """
    document = read_yaml(path)
    faults: list[Fault] = []
    sweep: Sweep | None = None
    try:
        sweep = Sweep.model_validate(document.data)
        faults = _faults(sweep)
    except ValidationError as error:
        faults = plain_faults(error, Sweep)
    placed = [Fault(f.path, f.message, document.lines.at(f.path)) for f in faults if not document.refuses(f.path)]
    if sweep is None or document.faults or placed:
        raise RecipeError(sorted([*document.faults, *placed], key=lambda fault: fault.line or 0), path)
    return sweep


def _faults(sweep: Sweep) -> list[Fault]:
    """Faults of meaning: each variant is checked once per task, and reported once."""
    found: dict[Fault, None] = {}
    seeds = [column.seed for column in sweep.seeds]
    for index, column in enumerate(sweep.seeds):
        for fault in check_task(column.task):
            found[Fault(("seeds", index, *fault.path), fault.message)] = None
        for fault in check_model(column.task, sweep.model):
            found[fault] = None
        if seeds.index(column.seed) != index:
            found[Fault(("seeds", index, "seed"), f"{column.seed} is given twice")] = None
    for folder, recipe in sweep.cells():
        for fault in check(recipe, TASKS.get(recipe.task)):
            found[Fault(("variants", folder.partition("/")[0], *fault.path[1:]), fault.message)] = None
    return list(found)
