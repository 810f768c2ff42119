"""python -m toolkit.sweep SWEEP --out DIR: run every variant for every seed, one after another; resumable.

Run it again to go on: finished cells are left alone, stopped ones continue; --retry-failed runs failed ones again.
Exit codes: 0 all cells are finished; 1 some failed (or something unexpected); 2 something the user can fix.
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
from toolkit.record.plan import PLAN_FILE
from toolkit.record.run import FAILED_FILE
from toolkit.sweeping.settings import read_sweep
from toolkit.tasks.task_file import add_task_file_argument, given_task_file


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return exit_code(lambda: _sweep(args, Console()))


def _sweep(args: argparse.Namespace, console: Console) -> int:
    file = given_task_file(args)
    own = None if file is None else (file.make(), file.origin)
    sweep, out = read_sweep(args.sweep, None if own is None else own[0].name), args.out
    planned = [name for name, _ in sweep.planned_cells()]
    names = [*planned, *(name for name, _ in sweep.cells())]
    options = {"only": args.only, "retry_failed": args.retry_failed, "folder": args.sweep.parent, "console": console}
    done = []
    for name in toolkit.run_sweep(sweep, out, own=own, **options):
        done.append(name)
        write_sweep_table(out, sweep.name, names)
    if any((out / name / PLAN_FILE).exists() for name in planned):
        write_fronts(load_fronts(out, names), out)
    failed = [name for name in done if (out / name / FAILED_FILE).exists()]
    for name in failed:
        console.line(f"failed: {name}: {(out / name / FAILED_FILE).read_text().strip()}")
    console.line(f"table: {out / 'table.md'}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.sweep", description="Run variants of a recipe over several seeds and tabulate them."
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="such as recipes/sweeps/hapt_depth.yaml")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="a folder for all runs")
    add_task_file_argument(parser)
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="run these variants alone")
    parser.add_argument("--retry-failed", action="store_true", help="run cells again that failed before")
    return parser


if __name__ == "__main__":
    sys.exit(main())
