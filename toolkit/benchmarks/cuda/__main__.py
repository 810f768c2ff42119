"""python -m toolkit.benchmarks.cuda --out DIR: times depth against width at equal multiply-adds on this machine's GPU.

The cells are measured in order of their value, and each is kept as soon as it is done. The same command goes on after
an interruption; delete a file in DIR/cells to measure its cell again. `--rehearse` runs every cell with tiny sizes on
the CPU. `--tables DIR` only writes the page, from the cells in DIR. Exit codes: 0 done, or the time is over; 1 an
unexpected error; 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from toolkit.base.command import exit_code, positive
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.benchmarks.cuda.bench import FULL, Clock, CudaBench, Deadline, run_cells
from toolkit.benchmarks.cuda.cells import load_cells
from toolkit.benchmarks.cuda.page import write_page
from toolkit.benchmarks.cuda.rehearse import tiny_sizes
from toolkit.measure.reproducible import reproducible

WORK = Path("runs") / "cuda"


def main(argv: Sequence[str] | None = None, clock: Clock = time.monotonic) -> int:
    """Runs the command with `argv` (None: the arguments of the process), and returns its exit code.

    clock: gives seconds, for the time limit.
    """
    args = _parser().parse_args(argv)
    return exit_code(lambda: _write(args.tables) if args.tables is not None else _run(args, clock))


def _write(out: Path) -> None:
    print(f"page: {write_page(out)}")


def _run(args: argparse.Namespace, clock: Clock) -> None:
    deadline = Deadline(None if args.minutes is None else 60.0 * args.minutes, clock)
    console, work = Console(), args.work or (args.out / "work" if args.rehearse else WORK)
    if not args.rehearse and not torch.cuda.is_available():
        raise UserError("torch finds no CUDA device here; --rehearse runs every cell with tiny sizes on the CPU")
    if any(cell.rehearsal != args.rehearse for cell in load_cells(args.out).values()):
        other = "measured cells" if args.rehearse else "cells of a rehearsal"
        raise UserError(f"--out {args.out}: holds {other}; choose another folder")
    sizes = tiny_sizes(work) if args.rehearse else FULL
    bench = CudaBench(args.out, work, sizes, console)
    with reproducible(torch.device(sizes.device)):
        not_reached = run_cells(sizes.plan(), args.out, bench.do, deadline, console)
    if not_reached:
        console.line(f"not reached: {', '.join(not_reached)}; run the same command again to go on")
    if load_cells(args.out):
        console.line(f"page: {write_page(args.out)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.benchmarks.cuda",
        description="Time depth against width at equal multiply-adds on a GPU.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="folder for the cells and the page")
    where.add_argument("--tables", type=Path, metavar="DIR", help="only write the page, from the cells in this folder")
    parser.add_argument("--minutes", type=positive, metavar="N", help="stop after this many minutes (default: never)")
    parser.add_argument(
        "--rehearse", action="store_true", help="run every cell with tiny sizes on the CPU (default: measure)"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help=f"folder for runs and tables (default: {WORK})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
