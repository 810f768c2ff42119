"""Runs the cells of a sweep, one after another."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.base.console import Console
from toolkit.base.errors import PlanError, StageError, UserError
from toolkit.base.files import write_atomically
from toolkit.planning.session import Planner, open_session
from toolkit.planning.settings import PlanSettings
from toolkit.recipe.recipe import Recipe
from toolkit.record.plan import INFEASIBLE_FILE, PLAN_FILE, load_plan_record
from toolkit.record.run import FAILED_FILE, RUN_FILE, load_record
from toolkit.running.runner import run
from toolkit.sweeping.settings import PlannedCell, Sweep
from toolkit.tasks.cards import make_task
from toolkit.tasks.origin import TaskOrigin
from toolkit.tasks.task import Task

with suppress(ImportError):  # not on Windows, where two processes in one folder are not noticed
    import fcntl

LOCK_FILE = ".lock"

OwnTask = tuple[Task, TaskOrigin]


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    only: Sequence[str] | None = None,
    retry_failed: bool = False,
    folder: Path | None = None,
    console: Console | None = None,
    own: OwnTask | None = None,
) -> Iterator[str]:
    """Runs the cells of `sweep` into folders under `out`, and yields each folder's name when its cell is done.

    Finished cells are left alone and stopped ones continue. A cell that fails in a way that its run explains leaves
    a file that says so, and the sweep goes on; `retry_failed` runs such cells again. `only` names variants; the
    others are left out. A relative path of weights in a recipe starts from `folder`. `own` is the user's own task,
    which cells with its name are run with, and where it comes from.

    Raises:
        UserError: another process is running this sweep.
    """
    console = console or Console()
    runner = _CellRunner(CellPlanner(sweep, out / "tables", console, own, folder), retry_failed, folder, console, own)
    every: list[tuple[str, Recipe | PlannedCell]] = [*sweep.planned_cells(), *sweep.cells()]
    cells = [cell for cell in every if only is None or cell[0].partition("/")[0] in only]
    out.mkdir(parents=True, exist_ok=True)
    with _only_process(out / LOCK_FILE):
        for number, (name, cell) in enumerate(cells, 1):
            console.line(f"[{number}/{len(cells)}] {name}")
            runner.run(out / name, cell)
            yield name


class CellPlanner:
    """Plans cells; what is scored and timed for one of them serves the others."""

    def __init__(
        self, sweep: Sweep, tables: Path, console: Console, own: OwnTask | None = None, folder: Path | None = None
    ) -> None:
        self.sweep, self.tables, self.console, self.own, self.folder = sweep, tables, console, own, folder
        self.planners: dict[str, Planner] = {}  # by the task's name and settings

    def record_folder(self, out: Path) -> Path:
        """Where the record of a cell's plan waits for its run to be finished: runs start in empty folders."""
        folder = self.tables / "plans" / f"{out.parent.name}-{out.name}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def recipe(self, cell: PlannedCell, out: Path) -> Recipe:
        """The cell's recipe; its plan's record goes where `record_folder` says.

        Raises:
            PlanError: no plan of the family holds the budget.
        """
        plans = self.sweep.plans
        assert plans is not None
        key = repr(cell.task)
        if key not in self.planners:
            budgets = [planned.budget for _, planned in self.sweep.planned_cells()]
            is_timed = any(budget.limits_latency for budget in budgets)
            settings = PlanSettings(
                device=self.sweep.device,
                batch_sizes=self.sweep.measure.batch_sizes if is_timed else (),
                threads=self.sweep.measure.threads,
                tables=self.tables,
                examples=plans.examples,
                criterion=plans.criterion,
                scored_on=plans.scored_on,
            ).timed_for(budgets)
            is_own = self.own is not None and self.own[0].name == cell.task
            task = self.own[0] if self.own is not None and is_own else make_task(cell.task, folder=self.folder)
            self.planners[key] = open_session(task, settings, console=self.console)
        planned = self.planners[key].plan(cell.budget, cell.family, plans.evaluations)
        planned.note.save(self.record_folder(out))
        recipe = planned.recipe(plans.then, seed=cell.seed)
        update = {"measure": self.sweep.measure, "task": cell.task, "keep_stages": self.sweep.keep_stages}
        return recipe.model_copy(update=update)


@dataclass
class _CellRunner:
    planner: CellPlanner
    retry_failed: bool
    folder: Path | None
    console: Console = field(default_factory=Console)
    own: OwnTask | None = None

    def run(self, out: Path, cell: Recipe | PlannedCell) -> None:
        """One run, begun or continued; a failure that the run itself explains is written down."""
        for name, words in ((FAILED_FILE, "failed"), (INFEASIBLE_FILE, "infeasible")):
            if (out / name).exists() and not self.retry_failed:
                self.console.line(f"  {words} before; --retry-failed tries again")
                return
            (out / name).unlink(missing_ok=True)
        started_before = (out / RUN_FILE).exists()
        if started_before and (record := load_record(out)).finished:
            self._check_is_of(record.recipe, cell, out)
            if isinstance(cell, PlannedCell) and not (out / PLAN_FILE).exists():  # stopped just before it was copied
                load_plan_record(self.planner.record_folder(out)).save(out)
            self.console.line("  finished")
            return
        started = time.monotonic()
        try:
            self._run(out, cell, started_before)
        except PlanError as error:
            self._write_down(out / INFEASIBLE_FILE, "infeasible", error)
        except StageError as error:
            self._write_down(out / FAILED_FILE, "failed", error)
        else:
            self.console.line(f"  done in {time.monotonic() - started:.0f} s")

    def _check_is_of(self, recipe: Recipe, cell: Recipe | PlannedCell, out: Path) -> None:
        """Checks that a finished run is of this sweep, whose settings may have changed since.

        Raises:
            UserError: the run has other stages, another seed or another measurement.
        """
        folder = self.folder or Path()  # where relative paths of the sweep start; those of the run start from `out`
        if isinstance(cell, Recipe):
            is_same = recipe.is_same_but_for_its_task_file(cell.moved(folder, out))
        else:
            sweep = self.planner.sweep
            assert sweep.plans is not None
            task = cell.task if isinstance(cell.task, str) else cell.task.moved(folder, out)
            is_same = (recipe.task, recipe.seed, recipe.device) == (task, cell.seed, sweep.device)
            is_same &= recipe.measure == sweep.measure
            is_same &= recipe.stages[len(recipe.stages) - len(sweep.plans.then) :] == sweep.plans.then
        if not is_same:
            raise UserError(
                f"{out}: holds a finished run of other settings than this sweep's; choose another --out, or remove the "
                "folder"
            )

    def _run(self, out: Path, cell: Recipe | PlannedCell, started_before: bool) -> None:
        if isinstance(cell, Recipe):
            recipe = cell
        else:
            recipe = load_record(out).recipe if started_before else self.planner.recipe(cell, out)
        given: dict[str, Task] = {}
        if self.own is not None and self.own[0].name == recipe.task_name:
            given, recipe = {"task": self.own[0]}, recipe.of_own_task(self.own[1])
        folder = out if isinstance(cell, PlannedCell) and started_before else self.folder  # where its recipe lies
        run(recipe, **given, folder=folder, out=out, resume=started_before, console=self.console)
        if isinstance(cell, PlannedCell):
            load_plan_record(self.planner.record_folder(out)).save(out)

    def _write_down(self, file: Path, word: str, error: Exception) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, f"{error}\n")
        self.console.line(f"  {word}: {error}")


@contextmanager
def _only_process(lock: Path) -> Iterator[None]:
    """One process at a time in a sweep's folder; the lock goes with the process, whatever ends it."""
    with open(lock, "w", encoding="utf-8") as file:
        if "fcntl" in globals():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                folder = lock.parent
                raise UserError(f"{folder}: another process is running this sweep; wait for it or stop it") from error
        yield
