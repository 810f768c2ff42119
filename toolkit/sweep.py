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

import toolkit
from reports.sweep_table import write_sweep_table
from toolkit.console import Console
from toolkit.errors import StageError, UserError
from toolkit.recipe import Recipe
from toolkit.record import RUN_FILE, load_record, write_atomically
from toolkit.sweep_plan import read_sweep

FAILED_FILE = "failed.txt"
LOCK_FILE = ".lock"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    console = Console()
    try:
        sweep = read_sweep(args.sweep)
        cells = [cell for cell in sweep.cells() if args.only is None or cell[0].partition("/")[0] in args.only]
        args.out.mkdir(parents=True, exist_ok=True)
        with _alone(args.out):
            for number, (folder, recipe) in enumerate(cells, 1):
                console.line(f"[{number}/{len(cells)}] {folder}")
                _run_cell(args.out / folder, recipe, args.sweep.parent, args.retry_failed, console)
                write_sweep_table(args.out, sweep.name, [folder for folder, _ in sweep.cells()])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    failed = [folder for folder, _ in cells if (args.out / folder / FAILED_FILE).exists()]
    for folder in failed:
        console.line(f"failed: {folder}: {(args.out / folder / FAILED_FILE).read_text().strip()}")
    console.line(f"table: {args.out / 'table.md'}")
    return 1 if failed else 0


def _run_cell(out: Path, recipe: Recipe, folder: Path, retry_failed: bool, console: Console) -> None:
    """One run, begun or continued; a failure that the run itself explains is written down, and the sweep goes on."""
    failed = out / FAILED_FILE
    if failed.exists() and not retry_failed:
        console.line("  failed before; --retry-failed tries again")
        return
    failed.unlink(missing_ok=True)
    if (out / RUN_FILE).exists() and load_record(out).finished:
        console.line("  finished")
        return
    started = time.monotonic()
    try:
        toolkit.run(recipe, folder=folder, out=out, resume=(out / RUN_FILE).exists(), console=console)
    except StageError as error:
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
