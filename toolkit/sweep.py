"""python -m toolkit.sweep SWEEP --out DIR: runs every variant with every seed, one after the other; resumable.

The same command goes on after an interruption: it leaves finished cells (a cell is a variant with a seed) alone and
continues stopped ones; with --retry-failed it runs failed cells again. Exit codes: 0 all cells are finished; 1 some
cells failed, or an unexpected error; 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import toolkit
from reports.fronts.cells import load_fronts
from reports.fronts.page import write_fronts
from reports.sweep.table import write_sweep_table
from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.recipe.changes import add_seed_argument, add_set_argument, change_of, changes_of
from toolkit.record.plan import PLAN_FILE
from toolkit.record.run import FAILED_FILE
from toolkit.sweeping.settings import read_sweep
from toolkit.tasks.task_file import add_task_file_argument, given_task_file


def main(argv: Sequence[str] | None = None) -> int:
    """Runs every variant of a sweep with every seed, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    args = _parser().parse_args(argv)
    return exit_code(lambda: _sweep(args, Console()))


def _sweep(args: argparse.Namespace, console: Console) -> int:
    file = given_task_file(args)
    own_task = None if file is None else (file.make(), file.origin)
    seed = None if args.seed is None else change_of("--seed", ("seed",), args.seed)
    name = None if own_task is None else own_task[0].name
    sweep, out = read_sweep(args.sweep, name, changes_of(args.changes), seed), args.out
    planned = [name for name, _ in sweep.planned_cells()]
    names = [*planned, *(name for name, _ in sweep.cells())]
    options = {"only": args.only, "retry_failed": args.retry_failed, "folder": args.sweep.parent, "console": console}
    finished_names = []
    for name in toolkit.run_sweep(sweep, out, own=own_task, **options):
        finished_names.append(name)
        write_sweep_table(out, sweep.name, names)
    if any((out / name / PLAN_FILE).exists() for name in planned):
        write_fronts(load_fronts(out, names), out)
    failed = [name for name in finished_names if (out / name / FAILED_FILE).exists()]
    for name in failed:
        console.line(f"failed: {name}: {(out / name / FAILED_FILE).read_text().strip()}")
    console.line(f"table: {out / 'table.md'}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.sweep", description="Run variants of a recipe over several seeds and tabulate them."
    )
    parser.add_argument(
        "sweep", type=Path, metavar="SWEEP", help="sweep file in YAML, such as recipes/sweeps/hapt_depth.yaml"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="folder for the runs of all cells and their tables"
    )
    add_task_file_argument(parser)
    add_seed_argument(parser, "run with this seed alone (default: the seeds of the sweep)")
    add_set_argument(parser, "variants.NAME.0.num_blocks=4 or measure.repeats=20")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="names of the variants to run (default: all)")
    parser.add_argument(
        "--retry-failed", action="store_true", help="run the cells again that failed before (default: leave them)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
