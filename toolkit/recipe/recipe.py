"""Holds recipes, which state one run as data. Nothing here imports torch.

Every ratio is of the **unmodified** model, so its meaning does not depend on the position of the stage.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from toolkit.base.files import content_sha256
from toolkit.base.settings import Positive, Settings, refuse_twice
from toolkit.measure.results import EAGER, FLOAT32, MeasuredRuntime, MeasurementKey, Precision
from toolkit.stages.settings import Stage
from toolkit.tasks.origin import TaskOrigin
from toolkit.tasks.reference import TaskReference, task_name
from toolkit.zoo.settings import ZooModel

RECIPE_VERSION: Final = 1

Family = Literal["none", "depth", "width", "combined", "dynamic"]


class Measure(Settings):
    """What is measured after every stage. Latency: `repeats` samples per batch size, after `warmup` untimed calls.

    It is measured in every one of `runtimes` (eager; compile: torch.compile; cuda_graph) with every one of `precisions`
    (float32: TF32 off; tf32; bfloat16: weights, buffers and inputs are cast), the dense model in the same as the
    compressed one; where one figure is shown, it is that of the first of both. The run's device must be able to do all
    of it; on another device that is there, what it cannot do is left out. A model that computes something else in a
    runtime or precision than in eager float32 is an error. Quality is always that of eager float32.
    """

    later: ClassVar[frozenset[str]] = frozenset({"precisions", "runtimes"})

    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)] = (1, 16)
    threads: Positive = 2
    repeats: Annotated[int, Field(ge=3)] = 40
    warmup: Annotated[int, Field(ge=0)] = 5
    splits: Annotated[tuple[Literal["validation", "test"], ...], Field(min_length=1, strict=False)] = (
        "validation",
        "test",
    )
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1, strict=False)] = (FLOAT32,)
    runtimes: Annotated[tuple[MeasuredRuntime, ...], Field(min_length=1, strict=False)] = (EAGER,)

    @model_validator(mode="after")
    def _once_each(self) -> Measure:
        refuse_twice("batch_sizes", self.batch_sizes)
        refuse_twice("splits", self.splits)
        refuse_twice("precisions", self.precisions)
        refuse_twice("runtimes", self.runtimes)
        return self


class Recipe(Settings):
    """States one run: a trained model (named by its task), the stages applied to it in order, and what is measured.

    `task` is a name, or a mapping with the settings of a task that takes any. `model` is given for task `zoo`, whose
    model it says, and for no other. `own_task` says that the task is the user's own; a run writes it, for its recipe to
    be read again.
    """

    later: ClassVar[frozenset[str]] = frozenset({"model", "own_task"})

    version: Literal[1] = RECIPE_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    task: TaskReference
    own_task: TaskOrigin | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    device: Literal["cpu", "cuda"]
    model: ZooModel | None = None
    stages: Annotated[tuple[Stage, ...], Field(strict=False)]
    measure: Measure

    @property
    def task_name(self) -> str:
        """Returns the name of the task, without its settings."""
        return task_name(self.task)

    def of_own_task(self, origin: TaskOrigin) -> Recipe:
        """Returns the recipe with the note of where the user's own task comes from."""
        return self.model_copy(update={"own_task": origin})

    def is_same_but_for_its_task_file(self, other: Recipe) -> bool:
        """Returns whether both say the same, whatever file makes the user's own task."""
        one, two = (recipe.model_copy(update={"own_task": None}) for recipe in (self, other))
        return one.sha256 == two.sha256

    @property
    def family(self) -> Family:
        """Returns the axes that the stages cut; `dynamic` only for a recipe that cuts neither depth nor width."""
        axes = {stage.axis for stage in self.stages} - {None}
        if axes >= {"depth", "width"}:
            return "combined"
        return "depth" if "depth" in axes else "width" if "width" in axes else "dynamic" if axes else "none"

    @property
    def trains(self) -> bool:
        """Whether a stage trains the model."""
        return any(stage.trains for stage in self.stages)

    @property
    def latency_shown(self) -> MeasurementKey:
        """What the latency is of that is shown where there is room for one: on the run's device, the largest batch."""
        return MeasurementKey(
            runtime=self.measure.runtimes[0],
            device=self.device,
            precision=self.measure.precisions[0],
            batch_size=max(self.measure.batch_sizes),
        )

    @property
    def sha256(self) -> str:
        """Returns the hash of the recipe with all defaults filled in, which is the same on every machine."""
        return content_sha256(self.model_dump(mode="json"))
