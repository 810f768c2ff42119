"""Runs a recipe: loads the dense model, then applies, checks, saves, measures and records stage after stage."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import Fault, RecipeError, StageError, UserError
from toolkit.base.files import file_sha256, link_folder, write_atomically
from toolkit.base.settings import Detail
from toolkit.checkpoint.factory import factory_of
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model
from toolkit.hooks.copies import copy_model
from toolkit.hooks.memory import out_of_memory_named
from toolkit.hooks.modes import with_flags_of
from toolkit.measure.macs import count_macs
from toolkit.measure.reproducible import reproducible
from toolkit.preflight.report import PREFLIGHT_FILE
from toolkit.recipe.check import check, check_model, check_named, check_same_task
from toolkit.recipe.recipe import Recipe
from toolkit.record.run import RunRecord, StepRecord
from toolkit.running.baseline import check_origin, origin_of, try_baseline
from toolkit.running.before import check_baseline, look_before, tell_folded
from toolkit.running.checks import check_changed, check_outputs, state_of
from toolkit.running.folder import MODEL_FOLDER, STAGES_FOLDER, begin_record, open_record
from toolkit.running.measuring import in_words, measure
from toolkit.stages.context import StageContext
from toolkit.stages.registry import STAGES
from toolkit.stages.rounds import RoundStore
from toolkit.tasks.cards import TASKS, make_task
from toolkit.tasks.folded import folded_task
from toolkit.tasks.origin import TaskOrigin
from toolkit.tasks.task import Task
from toolkit.tasks.trial import inputs_of, load_baseline


def run(
    recipe: Recipe,
    *,
    task: Task | None = None,
    folder: Path | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> RunRecord:
    """Applies a recipe, writes `run.json`, `recipe.resolved.yaml`, `stages/` and `model/`, and returns the record.

    task: a task of your own; with None the recipe names a built-in task.
    folder: what a relative path of weights in the recipe starts from; None stands for the current folder.
    out: the folder that is written; None stands for `runs/<recipe name>`.
    resume: whether to continue the run in `out` after its last finished stage.

    Raises:
        UserError: the recipe, the folder or the device cannot be used, a stage cannot meet its target, or memory is
            too small for a batch.
    """
    console = console or Console()
    out = Path("runs") / recipe.name if out is None else Path(out)
    recipe, task = _for_this_run(recipe, task, folder, out)
    device = _device(recipe.device)
    try:
        record = open_record(recipe, out, resume)
        with reproducible(device):
            task, folded = folded_task(task)
            dense = load_baseline(task)
            origin = _origin(recipe, out) | origin_of(dense, inputs_of(task, 1))
            check_origin(record, origin, out)
            if record.finished:
                console.line(f"{out} is already finished")
                return record
            tell_folded(folded, console)
            progress = _Run(recipe, task, dense.to(device).eval(), out, device, console)
            progress.folded = tuple(folded)
            check_baseline(task, progress.dense, progress.inputs(progress.smallest_batch), console)
            if not record.steps:
                preflight = look_before(recipe, task, progress.dense, console)  # before anything is written
                begin_record(record, out)
                write_atomically(out / PREFLIGHT_FILE, preflight.model_dump_json(indent=1) + "\n")
            return progress.go(record, origin)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}; the run cannot be kept there") from error


def _for_this_run(recipe: Recipe, task: Task | None, folder: Path | None, out: Path) -> tuple[Recipe, Task]:
    """Returns the recipe as the run keeps it in `out`, so that it can be run again where it lies, and the task."""
    if task is None:
        _refuse(check_named(recipe))
        task = _built_in(recipe, folder)
    else:
        recipe = _of_given_task(recipe, task)
    return recipe.moved(folder or Path(), out), task


def _built_in(recipe: Recipe, folder: Path | None) -> Task:
    if recipe.own_task is not None:
        raise UserError(
            f"the recipe's task {recipe.task_name!r} is one of your own, made by {recipe.own_task.in_words()}; "
            f"{recipe.own_task.how_to_give}"
        )
    return make_task(recipe.task, recipe.model, folder)


def _of_given_task(recipe: Recipe, task: Task) -> Recipe:
    """Returns the recipe with a note that its task is the user's own, if it is."""
    check_same_task(recipe.task_name, task.name)
    _refuse(check_model(recipe.task_name, recipe.model) + check(recipe, None))
    if task.name in TASKS or recipe.own_task is not None:
        return recipe
    return recipe.of_own_task(TaskOrigin())


def _origin(recipe: Recipe, folder: Path) -> Detail:
    """Returns the hash of the weights file that the recipe names, if it names one, for the record's first step."""
    if recipe.model is None or recipe.model.weights is None:
        return {}
    return {"weights_sha256": file_sha256(folder / recipe.model.weights)}


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise RecipeError(faults)


class _Run:
    """Holds what stays the same from step to step of one run in progress."""

    def __init__(
        self, recipe: Recipe, task: Task, dense: nn.Module, out: Path, device: torch.device, console: Console
    ) -> None:
        self.recipe, self.task, self.dense = recipe, task, dense
        self.out, self.device, self.console = out, device, console
        self.smallest_batch = try_baseline(recipe, task, dense, device)
        self.dense_macs = self.count_macs(dense)
        self.folded: tuple[str, ...] = ()

    def count_macs(self, model: nn.Module) -> int | None:
        return count_macs(model, self.inputs(self.smallest_batch), self.smallest_batch).known_total

    def inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        return tuple(part.to(self.device) for part in inputs_of(self.task, batch_size))

    def go(self, record: RunRecord, origin: Detail) -> RunRecord:
        num_steps = len(self.recipe.stages) + 1
        model = self._last_model(record)
        for index in range(len(record.steps), num_steps):
            name = "baseline" if index == 0 else self.recipe.stages[index - 1].type
            self.console.line(f"[{index + 1}/{num_steps}] {name}")
            started = time.perf_counter()
            detail = origin
            if index > 0:
                model, detail = self._apply(index - 1, model)
            measurement = measure(model, self.dense, self.task, self.recipe, self.smallest_batch, self.console)
            step = StepRecord(stage=name, detail=detail, seconds=time.perf_counter() - started, measurement=measurement)
            record = record.with_step(step)
            record.save(self.out)
            self._tidy(index)
            self.console.line(in_words(step, record))
        return self._finish(record, model)

    def _finish(self, record: RunRecord, model: nn.Module) -> RunRecord:
        if self.recipe.stages:
            link_folder(self._stage_folder(len(self.recipe.stages) - 1), self.out / MODEL_FOLDER)
        else:
            self._save(model, self.out / MODEL_FOLDER)
        record = record.model_copy(update={"finished": True})
        record.save(self.out)
        return record

    def _tidy(self, index: int) -> None:
        """Removes what is of no more use once step `index` is recorded: its rounds, and models not to be kept."""
        if index > 0:
            shutil.rmtree(self._rounds_folder(index - 1), ignore_errors=True)
        if self.recipe.keep_stages == "last":
            for earlier in range(index - 1):
                shutil.rmtree(self._stage_folder(earlier), ignore_errors=True)

    def _last_model(self, record: RunRecord) -> nn.Module:
        done = len(record.steps) - 1
        if done <= 0:
            return copy_model(self.dense)
        return self._load(self._stage_folder(done - 1))

    def _stage_folder(self, index: int) -> Path:
        return self.out / STAGES_FOLDER / f"{index + 1:02d}-{self.recipe.stages[index].type}"

    def _rounds_folder(self, index: int) -> Path:
        """Returns the folder where a stage keeps its finished rounds while it runs."""
        folder = self._stage_folder(index)
        return folder.with_name(f".{folder.name}.rounds")

    def _apply(self, index: int, model: nn.Module) -> tuple[nn.Module, Detail]:
        """Applies and checks one stage; returns the model as saved and loaded again, and the stage's detail."""
        stage = self.recipe.stages[index]
        state_before = state_of(model)
        context = StageContext(
            dense=self.dense,
            dense_macs=self.dense_macs,
            count_macs=self.count_macs,
            device=self.device,
            seed=self.recipe.seed * 1000 + index,
            console=self.console,
            rounds=RoundStore(self._rounds_folder(index), self._save, self._load),
            smallest_batch=self.smallest_batch,
        )
        torch.manual_seed(context.seed)
        advice = "use a device with more memory"
        try:
            with out_of_memory_named(f"stage {index} {stage.type}", lambda: next(iter(context.running), None), advice):
                model, detail = STAGES[stage.type](model, self.task, stage, context)
            others = context.other_paths(self.task, self.dense)
            check_outputs(model, self.dense, self.inputs, self.smallest_batch, others)
            check_changed(state_before, model, stage.may_change_nothing or detail.kept_as_it_came())
        except StageError as error:
            raise StageError(f"{stage.type}: {error}", index) from error
        folder = self._stage_folder(index)
        self._save(model, folder)
        return self._load(folder), detail.model_dump(mode="json", exclude_unset=True)

    def _save(self, model: nn.Module, folder: Path) -> None:
        if folder.exists():  # left by a run that was killed before it recorded the step
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(
            folder,
            model,
            self.dense,
            factory=factory_of(self.recipe),
            example_inputs=self.inputs(self.smallest_batch),
            recipe_sha256=self.recipe.sha256,
            folded=self.folded,
        )

    def _load(self, folder: Path) -> nn.Module:
        loaded = load_model(folder, self.task.build_model()).to(self.device).eval()
        return with_flags_of(loaded, self.dense)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no CUDA device here; use device: cpu or --device cpu")
    return torch.device(name)
