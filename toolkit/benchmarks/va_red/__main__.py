"""python -m toolkit.benchmarks.va_red --out DIR: dynamic layers beside all their controls, on two tasks, three seeds.

Every cell is kept as soon as it is done, and the same command goes on after an interruption; delete a file in DIR/cells
to run its cell again. `--latency` times the models of finished cells; nothing else must run on the machine meanwhile.
`--tables` only writes the tables. Exit codes: 0 done; 1 an unexpected error; 2 something the user can fix.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.benchmarks.va_red.bench import DynamicBench
from toolkit.benchmarks.va_red.rows import SEEDS, STUDIES, Study, name_of
from toolkit.benchmarks.va_red.table import write_tables
from toolkit.tasks.cards import make_task

WORK = Path("runs") / "va_red_benchmark"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs or times the missing cells, writes the tables, and returns the exit code."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    console = Console()
    studies = [study for name, study in STUDIES.items() if args.study in (None, name)]
    for study in [] if args.tables else studies:
        bench = DynamicBench(study, args.out, args.work, make_task, console)
        for row, level, seed in cells_of(study):
            words = (bench.time if args.latency else bench.do)(row, level, seed)
            console.line(f"{study.name}, {name_of(row, level, seed)}: {words}")
    console.line(f"tables: {write_tables(args.out)}")


def cells_of(study: Study) -> Iterator[tuple[str, str, int]]:
    """Yields row, level and seed of every cell, seed by seed, so that whole tables of fewer seeds come first."""
    for seed in SEEDS:
        for row, level in study.rows():
            yield row, level, seed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.benchmarks.va_red",
        description="Measure VA-RED^2 beside random gates, constant options, an oracle and channel pruning.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for cells and tables")
    parser.add_argument("--study", choices=sorted(STUDIES), help="run the cells of one task (default: all)")
    parser.add_argument("--latency", action="store_true", help="time the models of finished cells (default: run cells)")
    parser.add_argument("--tables", action="store_true", help="only write the tables (default: run cells)")
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="folder for runs (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
