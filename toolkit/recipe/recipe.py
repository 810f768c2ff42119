"""Holds recipes, which state one run as data. Nothing here imports torch.

Every ratio is of the **unmodified** model, so its meaning does not depend on the position of the stage.
"""

from __future__ import annotations

from pathlib import Path
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

KeepStages = Literal["all", "last"]

Family = Literal["none", "depth", "width", "combined", "dynamic"]


class Measure(Settings):
    """States what is measured after every stage.

    Latency is measured in every runtime with every precision; the dense model is timed in turns with the compressed one
    and in the same way. Where a report has room for one figure, it shows the first runtime with the first precision.
    The run's device must support all of them; on the machine's other device, those that it does not support are left
    out. It is an error if a model's outputs in a runtime or precision are not those of eager float32. Quality is always
    measured in eager float32.

    batch_sizes: the numbers of examples per call; latency is measured with each of them.
    threads: the number of CPU threads that compute while latency is measured.
    repeats: the number of latency samples for each batch size, at least 3.
    warmup: the number of untimed calls before the first sample.
    splits: the splits of the data on which the quality is measured: `validation`, `test` or both.
    precisions: the number types: `float32` (TF32 is off), `tf32` (CUDA alone; float32 with TF32 allowed in products of
        matrices and convolutions) or `bfloat16` (weights, buffers and inputs are cast before anything is timed).
    runtimes: what runs the model: `eager` (plain PyTorch), `compile` (torch.compile) or `cuda_graph` (CUDA alone).
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

    What is done, the task and the stages, has no default; what else a recipe leaves out, a run writes into its resolved
    recipe.

    version: the version of the recipe format, which is 1.
    name: the name of the run, which also names its folder: 1 to 80 letters, digits, `.`, `_` or `-`, of which the first
        is a letter or digit.
    task: the task, which brings the trained model, the data and the metric: its name, such as `tad-watch`; or, for a
        task that takes settings, a mapping of its settings with its name under `type`.
    own_task: the note that the task is made by the user's own code; null for a built-in task. A run writes it, so that
        its recipe can be read again; people leave it out.
    seed: the number that fixes all random choices of the run, a whole number from 0.
    device: the device on which the stages compute and the quality is measured: `cpu` or `cuda`.
    model: the model of a public zoo, for task `zoo` alone; null for every other task.
    stages: the stages, which are applied in this order; each is a mapping with its name under `type`. An empty list
        measures the unmodified model.
    measure: what is measured before the first stage and after every stage.
    keep_stages: the models that stay on disk: `all` keeps the model after every stage, `last` that of the last alone.
    """

    later: ClassVar[frozenset[str]] = frozenset({"model", "own_task", "keep_stages"})

    version: Literal[1] = RECIPE_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    task: TaskReference
    own_task: TaskOrigin | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    model: ZooModel | None = None
    stages: Annotated[tuple[Stage, ...], Field(strict=False)]
    measure: Measure = Measure()
    keep_stages: KeepStages = "all"

    @property
    def task_name(self) -> str:
        """Returns the name of the task, without its settings."""
        return task_name(self.task)

    def moved(self, old: Path, new: Path) -> Recipe:
        """Returns the recipe for a file in the folder `new`, where this one is of a file in the folder `old`.

        A relative path of a recipe starts from the folder of its file.
        """
        task = self.task if isinstance(self.task, str) else self.task.moved(old, new)
        model = None if self.model is None else self.model.moved(old, new)
        return self.model_copy(update={"task": task, "model": model})

    def of_own_task(self, origin: TaskOrigin) -> Recipe:
        """Returns the recipe with the note of where the user's own task comes from."""
        return self.model_copy(update={"own_task": origin})

    def is_same_but_for_its_task_file(self, other: Recipe) -> bool:
        """Returns whether both recipes say the same, whatever file makes the user's own task."""
        ours, theirs = (recipe.model_copy(update={"own_task": None}) for recipe in (self, other))
        return ours.sha256 == theirs.sha256

    @property
    def family(self) -> Family:
        """Returns the axes that the stages cut: `depth`, `width`, `combined` for both, or `none`.

        `dynamic` stands for work that depends on the input, in a recipe that cuts neither depth nor width.
        """
        axes = {stage.axis for stage in self.stages} - {None}
        if axes >= {"depth", "width"}:
            return "combined"
        return "depth" if "depth" in axes else "width" if "width" in axes else "dynamic" if axes else "none"

    @property
    def trains(self) -> bool:
        """Returns whether one of the stages trains the model."""
        return any(stage.trains for stage in self.stages)

    @property
    def latency_shown(self) -> MeasurementKey:
        """Returns the key of the latency to show where there is room for one: the run's device, the largest batch."""
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
