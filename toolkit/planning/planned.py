"""Holds the result of planning: what makes the recipe, and the record that is kept beside the recipe's run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.planning.solve import stages_of
from toolkit.planning.tables import Plan, Tables
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.record.plan import PlanRecord
from toolkit.stages.settings import Stage
from toolkit.zoo.settings import ZooModel


@dataclass(frozen=True)
class Planned:
    """Holds a plan, the tables that it was made from, and the record of how it was found.

    task: the name of the task.
    order: the order of the depth and width stages, one of `ORDERS`.
    note: the record that is saved beside the run.
    """

    task: str
    choice: Plan
    order: str
    note: PlanRecord
    tables: Tables

    def recipe(self, then: Sequence[Stage] = (), *, seed: int = 0, model: ZooModel | None = None) -> Recipe:
        """Returns the recipe of the plan's stages, followed by the stages `then`.

        model: the zoo model, for task `zoo` alone.
        """
        note = self.note
        timed = tuple(dict.fromkeys(key.batch_size for key in note.predicted.latency_ratio))
        sizes = timed or Measure().batch_sizes  # a plan for multiply-adds may have no latency
        return Recipe(
            name=f"{note.family}-{note.budget.replace('=', '_').replace(',', '-')}",
            task=self.task,
            seed=seed,
            device="cuda" if note.device == "cuda" else "cpu",
            model=model,
            stages=(*stages_of(self.tables, self.choice, self.order, note.width_repair), *then),
            measure=Measure(batch_sizes=sizes, threads=note.threads),
        )
