"""Runs the cells of the benchmark, and keeps each as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from toolkit.base.console import Console
from toolkit.base.errors import StageError, UserError
from toolkit.benchmarks.va_red.cells import DynamicCell, cell_file, load_cell, save_cell
from toolkit.benchmarks.va_red.controls import (
    Chosen,
    Setting,
    choices_by_rule,
    choices_of_others,
    oracle_choices,
    random_choices,
)
from toolkit.benchmarks.va_red.rows import Study, name_of
from toolkit.benchmarks.va_red.told import untrained
from toolkit.checkpoint.load import load_model
from toolkit.measure.environment import describe_environment
from toolkit.measure.macs import count_macs
from toolkit.measure.reproducible import reproducible
from toolkit.measure.results import Measurement
from toolkit.record.run import RunRecord
from toolkit.running.measuring import measure
from toolkit.running.runner import run
from toolkit.tasks.reference import TaskReference
from toolkit.tasks.task import Task

CONTROLS: Mapping[str, Callable[[Setting], Chosen]] = {
    "shuffled": choices_of_others,
    "random": random_choices,
    "oracle": oracle_choices,
    "rule_oracle": choices_by_rule,
}

AS_DEAR_AS = {"constant": "policy", "channel_prune": "policy", "rule_constant": "rule_oracle"}

AFTER = {"policy_hard": "policy", "constant_free": "constant"}  # are measured in the run of another row, a step earlier

TIMED = ("dense", "policy", "constant", "channel_prune", "block_drop_policy")


@dataclass
class DynamicBench:
    """Runs and times the cells of one study.

    out: the folder that keeps cells.
    work: the folder of runs, from which models are timed.
    make_task: returns a task by its name.
    """

    study: Study
    out: Path
    work: Path
    make_task: Callable[[TaskReference], Task]
    console: Console = field(default_factory=Console)

    def do(self, row: str, level: str, seed: int) -> str:
        """Runs a cell unless it is kept already, and returns the result in words."""
        path = self._file(row, level, seed)
        if path.exists():
            return "finished already"
        started = time.monotonic()
        try:
            cell = self._control(row, level, seed) if row in CONTROLS else self._of_recipe(row, level, seed)
        except StageError as error:
            cell = self._cell(row, level, seed, reason=" ".join(str(error).split()))
        cell = cell.model_copy(update={"seconds": time.monotonic() - started})
        save_cell(path, cell)
        if cell.reason:
            return f"no model: {cell.reason}"
        return f"{cell.value('test'):.3f} on test at {cell.macs_ratio:.3f} of the MACs ({cell.seconds:.0f} s)"

    def time(self, row: str, level: str, seed: int) -> str:
        """Times the model of a cell unless it is timed already, and returns the result in words."""
        path = self._file(row, level, seed)
        folder = self._folder(row, level, seed)
        if row not in TIMED or not path.exists():
            return "is not timed"
        cell = load_cell(path)
        if cell.latency or cell.reason:
            return cell.reason or "timed already"
        if not (folder / "model").exists():
            raise UserError(f"{folder} has no model to time; delete {path} to make it again")
        task = self._task(seed)
        model, dense = load_model(folder, task.build_model()), task.load_baseline()
        recipe = self.study.recipe("dense", "", seed).model_copy(update={"measure": self.study.measure})
        latency = measure(model, dense, task, recipe).latency
        save_cell(path, cell.model_copy(update={"latency": latency}))
        return ", ".join(f"{one.ratio:.2f} of the dense latency at batch {one.batch_size}" for one in latency)

    def _of_recipe(self, row: str, level: str, seed: int) -> DynamicCell:
        run_of = AFTER.get(row, row)
        record = self._run(run_of, level, seed)
        step = record.steps[-2 if row in AFTER else -1]
        return self._measured(row, level, seed, step.measurement, record)

    def _control(self, row: str, level: str, seed: int) -> DynamicCell:
        task = self._task(seed)
        dense = task.load_baseline()
        with reproducible(torch.device("cpu")):
            setting = Setting(
                task=task,
                dense=dense,
                start=untrained(dense, task),
                settings=self.study.recover(self.study.steps),
                seed=seed,
                console=self.console,
                true_groups=self.study.true_groups,
                rule=self.study.rule,
            )
            chosen = CONTROLS[row](setting if row == "rule_oracle" else self._beside_policy(setting, level, seed))
        return self._cell(row, level, seed).model_copy(
            update={
                "macs": round(chosen.of_inputs.mean),
                "dense_macs": count_macs(dense, task.example_inputs(1)).total,
                "of_inputs": chosen.of_inputs,
                "quality": chosen.quality,
            }
        )

    def _beside_policy(self, setting: Setting, level: str, seed: int) -> Setting:
        record = self._run("policy", level, seed)
        model = load_model(self._folder("policy", level, seed), setting.task.build_model())
        return replace(setting, policy=model, most_macs=record.steps[-1].measurement.macs.total)

    def _run(self, row: str, level: str, seed: int) -> RunRecord:
        macs_ratio = 1.0
        if row in AS_DEAR_AS:
            macs_ratio = load_cell(self._file(AS_DEAR_AS[row], level, seed)).macs_ratio
            if macs_ratio >= 1.0:
                raise StageError(
                    f"the {AS_DEAR_AS[row]} takes {macs_ratio:.3f} of the dense multiply-adds; it saves nothing"
                )
        recipe = self.study.recipe(row, level, seed, macs_ratio)
        folder = self._folder(row, level, seed)
        return run(
            recipe, task=self._task(seed), out=folder, resume=(folder / "run.json").exists(), console=self.console
        )

    def _measured(self, row: str, level: str, seed: int, measured: Measurement, record: RunRecord) -> DynamicCell:
        return self._cell(row, level, seed).model_copy(
            update={
                "macs": measured.macs.total,
                "dense_macs": record.baseline.measurement.macs.total,
                "of_inputs": measured.macs.of_inputs,
                "quality": measured.quality,
                "recipe": record.recipe,
            }
        )

    def _cell(self, row: str, level: str, seed: int, reason: str = "") -> DynamicCell:
        return DynamicCell(
            task=self.study.tasks[seed],
            row=row,
            level=level,
            seed=seed,
            reason=reason,
            environment=describe_environment(),
        )

    def _task(self, seed: int) -> Task:
        return self.make_task(self.study.tasks[seed])

    def _folder(self, row: str, level: str, seed: int) -> Path:
        return self.work / self.study.name / name_of(row, level, seed)

    def _file(self, row: str, level: str, seed: int) -> Path:
        return cell_file(self.out, self.study.name, row, level, seed)
