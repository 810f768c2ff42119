"""Holds recipes, which state one run as data. Nothing here imports torch.

Every ratio is of the **unmodified** model, so its meaning does not depend on the position of the stage.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from toolkit.base.files import content_sha256
from toolkit.base.settings import Positive, Settings, refuse_twice
from toolkit.stages.settings import Stage
from toolkit.tasks.reference import TaskReference, task_name
from toolkit.zoo.settings import ZooModel

RECIPE_VERSION: Final = 1

Family = Literal["none", "depth", "width", "combined", "dynamic"]


class Measure(Settings):
    """States what is measured after every stage.

    batch_sizes: numbers of examples per call for which latency is measured.
    threads: CPU threads of the latency measurement.
    repeats: latency samples per batch size.
    warmup: untimed calls before the samples.
    splits: the splits that quality is measured on.
    """

    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)] = (1, 16)
    threads: Positive = 2
    repeats: Annotated[int, Field(ge=3)] = 40
    warmup: Annotated[int, Field(ge=0)] = 5
    splits: Annotated[tuple[Literal["validation", "test"], ...], Field(min_length=1, strict=False)] = (
        "validation",
        "test",
    )

    @model_validator(mode="after")
    def _once_each(self) -> Measure:
        refuse_twice("batch_sizes", self.batch_sizes)
        refuse_twice("splits", self.splits)
        return self


class Recipe(Settings):
    """States one run: a trained model (named by its task), the stages applied to it in order, and what is measured.

    version: the version of the recipe's format.
    name: the name of the run in reports.
    task: the name of a task, or a mapping with its `type` and settings for a task that has settings.
    seed: the seed of all random choices of the stages.
    device: the device that the stages run on and that latency is measured on.
    model: the model of task `zoo`, which needs one; other tasks bring their own.
    stages: the stages in the order in which they are applied.
    measure: what is measured before the first stage and after every stage.
    """

    later: ClassVar[frozenset[str]] = frozenset({"model"})

    version: Literal[1] = RECIPE_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    task: TaskReference
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    device: Literal["cpu", "cuda"]
    model: ZooModel | None = None
    stages: Annotated[tuple[Stage, ...], Field(strict=False)]
    measure: Measure

    @property
    def task_name(self) -> str:
        """Returns the name of the task, without its settings."""
        return task_name(self.task)

    @property
    def family(self) -> Family:
        """Returns the axes that the stages cut; `dynamic` only for a recipe that cuts neither depth nor width."""
        axes = {stage.axis for stage in self.stages} - {None}
        if axes >= {"depth", "width"}:
            return "combined"
        return "depth" if "depth" in axes else "width" if "width" in axes else "dynamic" if axes else "none"

    @property
    def sha256(self) -> str:
        """Returns the hash of the recipe with all defaults filled in, which is the same on every machine."""
        return content_sha256(self.model_dump(mode="json"))
