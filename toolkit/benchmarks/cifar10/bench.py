"""Runs the cells of the CIFAR-10 benchmark: plans, applies, tests on the test images once, and keeps the result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from toolkit.base.console import Console
from toolkit.base.errors import PlanError, RecipeError, StageError
from toolkit.benchmarks.cifar10.cells import (
    BUDGET_BATCH,
    BYPASS_METHODS,
    DENSE,
    FAMILY_METHODS,
    WITH_BYPASS,
    CellKey,
    ImageCell,
    TimingCell,
    cell_file,
    load_image_cell,
    packed,
    save,
    timing_file,
)
from toolkit.benchmarks.cifar10.fine_tuning import fine_tune
from toolkit.benchmarks.cifar10.grail import refit_grail
from toolkit.benchmarks.cifar10.methods import (
    FOLLOWS,
    RECOVER,
    NotYetError,
    Stages,
    control_stages,
    recipe_of,
    recovery_stages,
)
from toolkit.benchmarks.cifar10.replace_me import refit_replace_me
from toolkit.checkpoint.load import load_model
from toolkit.hooks.points import Inputs
from toolkit.measure.environment import describe_environment
from toolkit.measure.latency import measure_latency
from toolkit.measure.macs import count_macs
from toolkit.measure.results import MeasurementKey
from toolkit.planning.budget import Budget, Limit
from toolkit.planning.search.refine import EVALUATIONS
from toolkit.planning.search.solver import FAMILIES
from toolkit.planning.session import Planner, open_session
from toolkit.planning.settings import PlanSettings
from toolkit.planning.solve import stages_of
from toolkit.recipe.recipe import Recipe
from toolkit.record.plan import PlanRecord
from toolkit.running.folder import MODEL_FOLDER
from toolkit.running.runner import run
from toolkit.tasks.cifar10.task import Cifar10Task

ROUND_TO = {"macs": 4, "latency": 8}  # the networks are 16 to 64 channels wide

MakeTask = Callable[[int, int], Cifar10Task]  # (depth of the network, draw)


@dataclass
class Bench:
    """Runs and times cells.

    out: the folder that keeps cells.
    work: the folder of runs and of the planner's tables, which later cells use.
    make_task: returns the task of a network, by its depth and the draw.
    examples, evaluations: settings of the planner.
    recover: the settings of the fine-tuning, which starts from the model of the cell without fine-tuning.
    threads: CPU threads of the latency measurement.
    timed_batches: the batch sizes that are timed; a budget of latency is for the largest one.
    repeats: latency samples of a finished model.
    """

    out: Path
    work: Path
    make_task: MakeTask = lambda depth, draw: Cifar10Task(depth, draw=draw)
    examples: int = 512
    evaluations: int = EVALUATIONS
    recover: Any = field(default_factory=lambda: RECOVER)
    threads: int = 2
    timed_batches: tuple[int, ...] = (1, BUDGET_BATCH)
    repeats: int = 40
    console: Console = field(default_factory=Console)
    planners: dict[tuple[int, int, str, bool], Planner] = field(default_factory=dict)
    tasks: dict[tuple[int, int], Cifar10Task] = field(default_factory=dict)

    def do(self, key: CellKey) -> str:
        """Runs a cell unless it is kept already, and returns the result in words.

        Raises:
            UserError: data are missing, or a file is damaged.
        """
        path = cell_file(self.out, key)
        if path.exists():
            return "finished already"
        started = time.monotonic()
        try:
            cell = self._cell(key)
        except (RecipeError, NotYetError) as error:  # not kept: it can be run later, or where a stage is known
            return f"NOT RUN: {error}"
        except (PlanError, StageError) as error:
            cell = ImageCell(**vars(key), reason=" ".join(str(error).split()), environment=describe_environment())
        cell = cell.model_copy(update={"seconds": time.monotonic() - started})
        save(path, cell)
        if cell.accuracy is None:
            return f"no model: {cell.reason}"
        return f"{100 * cell.accuracy:.2f} % at {cell.macs_ratio:.3f} of the MACs ({cell.seconds:.0f} s)"

    def time(self, key: CellKey) -> str:
        """Times the model of a cell unless it is timed already, and returns the result in words."""
        path, folder = timing_file(self.out, key), self.work / key.place
        if path.exists():
            return "timed already"
        if not (folder / "model").exists():
            return f"NOT TIMED: {folder} has no model"
        task = self.task(key)
        model, dense = load_model(folder, task.build_model()), task.load_baseline()
        latency = tuple(
            measure_latency(
                model,
                dense,
                task.example_inputs(size),
                MeasurementKey(device="cpu", batch_size=size),
                threads=self.threads,
                warmup=5,
                repeats=self.repeats,
            )
            for size in self.timed_batches
        )
        save(path, TimingCell(latency=latency, environment=describe_environment()))
        return ", ".join(f"{timing.ratio:.3f} at {timing.key.words}" for timing in latency)

    def task(self, key: CellKey) -> Cifar10Task:
        """Returns the task of a cell, which cells of the same network and draw share."""
        net = key.depth, key.draw
        if net not in self.tasks:
            self.tasks[net] = self.make_task(*net)
        return self.tasks[net]

    def _cell(self, key: CellKey) -> ImageCell:
        """Makes and tests the model of a cell.

        Raises:
            PlanError, StageError: there is no such model.
            RecipeError: a stage is not known.
            NotYetError: another cell must be run first.
        """
        task, dense = self.task(key), self.task(key).load_baseline()
        stages, plan = self._stages(key)
        recipe = recipe_of(key, task.name, stages)
        if key.seed is None:
            dropped = self._run(key, recipe)
            model = load_model(self.work / key.place, task.build_model())
            self._refit(key, model, dense, dropped)
        else:
            model, dropped = self._before(key)
            fine_tune(model, dense, task, recipe, self.work / key.place, self.console)
        right = task.hits(model, "test").numpy()
        return ImageCell(
            **vars(key),
            macs=count_macs(model, task.example_inputs(1)).total,
            dense_macs=count_macs(dense, task.example_inputs(1)).total,
            num_params=_num_params(model),
            dense_params=_num_params(dense),
            accuracy=float(right.mean()),
            num_images=len(right),
            hits=packed(right),
            dropped=dropped,
            recipe=recipe,
            plan=plan,
            environment=describe_environment(),
        )

    def _run(self, key: CellKey, recipe: Recipe) -> tuple[str, ...]:
        """Runs the recipe in the cell's folder, and returns the blocks that it dropped."""
        folder = self.work / key.place
        shutil.rmtree(folder, ignore_errors=True)
        record = run(recipe, task=self.task(key), out=folder, console=self.console)
        return tuple(block for step in record.steps for block in step.detail.get("dropped", ()))

    def _before(self, key: CellKey) -> tuple[nn.Module, tuple[str, ...]]:
        """Returns the model that fine-tuning starts from, the same for every seed, and its dropped blocks."""
        task, untrained = self.task(key), self._untrained(key, key.method)
        if untrained is None:
            assert key.method == DENSE
            return task.load_baseline(), ()
        assert untrained.recipe is not None
        folder = self.work / untrained.key.place
        if not (folder / MODEL_FOLDER).exists():
            self._run(untrained.key, untrained.recipe)
        return load_model(folder, task.build_model()), untrained.dropped

    def _stages(self, key: CellKey) -> tuple[Stages, PlanRecord | None]:
        if key.seed is not None:
            before = self._untrained(key, key.method)
            return recovery_stages(before, self.recover), None if before is None else before.plan
        if key.method == DENSE:
            return [], None
        if key.method not in (*FAMILY_METHODS, *BYPASS_METHODS):
            followed = FOLLOWS.get(key.method)
            return control_stages(key, None if followed is None else self._untrained(key, followed)), None
        limit = Limit(resource="macs" if key.resource == "macs" else "latency", value=key.budget)
        budget = Budget(limits=(limit,), batch_size=max(self.timed_batches), threads=self.threads)
        family = next(family for family in FAMILIES if family == key.method.removesuffix(WITH_BYPASS))
        planned = self._planner(key).plan(budget, family, self.evaluations)
        cuts = stages_of(planned.tables, planned.choice, planned.order, planned.note.width_repair)
        return [stage.model_dump(exclude_defaults=True) | {"type": stage.type} for stage in cuts], planned.note

    def _planner(self, key: CellKey) -> Planner:
        """Returns the planner of a cell; for multiply-adds it times nothing, so that a busy machine changes nothing."""
        bypass = key.method.endswith(WITH_BYPASS)  # controls follow plans without bypasses
        settings_key = key.depth, key.draw, key.resource, bypass
        if settings_key not in self.planners:
            settings = PlanSettings(
                batch_sizes=self.timed_batches if key.resource == "latency" else (),
                threads=self.threads,
                tables=self.work / "tables" / f"draw{key.draw}",
                examples=self.examples,
                round_to=ROUND_TO[key.resource],
                bypass=bypass,
            )
            self.planners[settings_key] = open_session(self.task(key), settings, console=self.console)
        return self.planners[settings_key]

    def _untrained(self, key: CellKey, method: str) -> ImageCell | None:
        """Returns the kept cell of a method at the same budget without fine-tuning, or None if it was not run."""
        return load_image_cell(
            cell_file(self.out, CellKey(key.depth, method, key.resource, key.budget, None, key.draw))
        )

    def _refit(self, key: CellKey, model: nn.Module, dense: nn.Module, dropped: tuple[str, ...]) -> None:
        batches = partial(self._calibration, key)
        if key.method == "replace_me":
            refit_replace_me(model, dense, dropped, batches)
        elif key.method == "grail":
            refit_grail(model, dense, batches)

    def _calibration(self, key: CellKey) -> Iterator[Inputs]:
        return (batch.inputs for batch in self.task(key).batches("calibration", 64))


def _num_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
