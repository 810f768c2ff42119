"""python -m toolkit.sweep SWEEP --out DIR: run every variant for every seed, one after another; resumable.

Run it again to go on: finished cells are left alone, stopped ones continue; --retry-failed runs failed ones again.
Exit codes: 0 all cells are finished; 1 some failed (or something unexpected); 2 something the user can fix.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import toolkit
from reports.front_cells import load_fronts
from reports.fronts_page import write_fronts
from reports.sweep_table import write_sweep_table
from toolkit.console import Console
from toolkit.errors import PlanError, StageError, UserError
from toolkit.planning.note import INFEASIBLE_FILE, PLAN_FILE, load_note
from toolkit.recipe import Recipe
from toolkit.record import RUN_FILE, load_record, write_atomically
from toolkit.sweep_plan import PlannedCell, Sweep, read_sweep
from toolkit.tasks import make_task
from toolkit.verb import exit_code

if TYPE_CHECKING:
    from toolkit.planning.session import Session

FAILED_FILE = "failed.txt"
LOCK_FILE = ".lock"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return exit_code(lambda: _sweep(args, Console()))


def _sweep(args: argparse.Namespace, console: Console) -> int:
    sweep = read_sweep(args.sweep)
    every: list[tuple[str, Recipe | PlannedCell]] = [*sweep.planned_cells(), *sweep.cells()]
    names = [folder for folder, _ in every]
    cells = [cell for cell in every if args.only is None or cell[0].partition("/")[0] in args.only]
    args.out.mkdir(parents=True, exist_ok=True)
    planner = Planner(sweep, args.out / "tables", console)
    with _alone(args.out):
        for number, (folder, cell) in enumerate(cells, 1):
            console.line(f"[{number}/{len(cells)}] {folder}")
            _run_cell(args.out / folder, cell, planner, args, console)
            write_sweep_table(args.out, sweep.name, names)
        if any((args.out / folder / PLAN_FILE).exists() for folder, _ in sweep.planned_cells()):
            write_fronts(load_fronts(args.out, names), args.out)
    failed = [folder for folder, _ in cells if (args.out / folder / FAILED_FILE).exists()]
    for folder in failed:
        console.line(f"failed: {folder}: {(args.out / folder / FAILED_FILE).read_text().strip()}")
    console.line(f"table: {args.out / 'table.md'}")
    return 1 if failed else 0


class Planner:
    """Plans cells; what is scored and timed for one of them serves the others."""

    def __init__(self, sweep: Sweep, tables: Path, console: Console) -> None:
        self.sweep, self.tables, self.console = sweep, tables, console
        self.sessions: dict[str, Session] = {}

    def note_folder(self, out: Path) -> Path:
        """Where a cell's note waits for its run to be finished: runs start in empty folders."""
        folder = self.tables / "plans" / f"{out.parent.name}-{out.name}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def recipe(self, cell: PlannedCell, out: Path) -> Recipe:
        """The cell's recipe; its plan's note goes where `note_folder` says.

        Raises:
            PlanError: no plan of the family holds the budget.
        """
        assert self.sweep.plans is not None
        if cell.task not in self.sessions:
            self.sessions[cell.task] = toolkit.open_session(
                make_task(cell.task),
                device=self.sweep.device,
                batch_sizes=(*self.sweep.measure.batch_sizes, cell.budget.batch_size),
                threads=self.sweep.measure.threads,
                folder=self.tables,
                examples=self.sweep.plans.examples,
                criterion=self.sweep.plans.criterion,
                scored_on=self.sweep.plans.scored_on,
                console=self.console,
            )
        planned = self.sessions[cell.task].plan(cell.budget, cell.family, self.sweep.plans.evaluations)
        planned.note.save(self.note_folder(out))
        recipe = planned.recipe(self.sweep.plans.then, seed=cell.seed)
        return recipe.model_copy(update={"measure": self.sweep.measure})


def _run_cell(
    out: Path, cell: Recipe | PlannedCell, planner: Planner, args: argparse.Namespace, console: Console
) -> None:
    """One run, begun or continued; a failure that the run itself explains is written down, and the sweep goes on."""
    for name, words in ((FAILED_FILE, "failed"), (INFEASIBLE_FILE, "infeasible")):
        if (out / name).exists() and not args.retry_failed:
            console.line(f"  {words} before; --retry-failed tries again")
            return
        (out / name).unlink(missing_ok=True)
    started_before = (out / RUN_FILE).exists()
    if started_before and load_record(out).finished:
        if isinstance(cell, PlannedCell) and not (out / PLAN_FILE).exists():  # stopped just before it was copied
            load_note(planner.note_folder(out)).save(out)
        console.line("  finished")
        return
    started = time.monotonic()
    failed = out / FAILED_FILE
    try:
        if isinstance(cell, Recipe):
            recipe = cell
        else:
            recipe = load_record(out).recipe if started_before else planner.recipe(cell, out)
        toolkit.run(recipe, folder=args.sweep.parent, out=out, resume=started_before, console=console)
        if isinstance(cell, PlannedCell):
            load_note(planner.note_folder(out)).save(out)
    except PlanError as error:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / INFEASIBLE_FILE, f"{error}\n")
        console.line(f"  infeasible: {error}")
    except StageError as error:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(failed, f"{error}\n")
        console.line(f"  failed: {error}")
    else:
        console.line(f"  done in {time.monotonic() - started:.0f} s")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time in a sweep's folder; the lock goes with the process, whatever ends it."""
    with open(folder / LOCK_FILE, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another process is running this sweep; wait for it or stop it") from error
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.sweep", description="Run variants of a recipe over several seeds and tabulate them."
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="such as recipes/sweeps/hapt_depth.yaml")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="a folder for all runs")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="run these variants alone")
    parser.add_argument("--retry-failed", action="store_true", help="run cells again that failed before")
    return parser


if __name__ == "__main__":
    sys.exit(main())
