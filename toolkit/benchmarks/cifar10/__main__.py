"""python -m toolkit.benchmarks.cifar10 --out DIR: measures depth, width, both and controls on CIFAR-10 ResNets.

The same command goes on after an interruption: cells that are finished are left alone. The parts are `training_free`,
`recovery` (which fine-tunes models of the first part) and `latency` (which plans for budgets of latency and then times
all models, and needs an idle machine). `--tables DIR` writes tables and figure from the cells in DIR and runs nothing.
Exit codes: 0 done; 1 something unexpected; 2 something the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit.base.command import exit_code, not_negative, positive
from toolkit.base.console import Console
from toolkit.benchmarks.cifar10.bench import Bench
from toolkit.benchmarks.cifar10.cells import PARTS, BenchmarkPart, CellKey, keys_of, load_all
from toolkit.benchmarks.cifar10.scores import models
from toolkit.benchmarks.cifar10.table import write_tables
from toolkit.planning.search.refine import EVALUATIONS
from toolkit.tasks.cifar10.card import DEPTHS

WORK = Path("runs") / "cifar10"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the missing cells of the benchmark, writes tables and figure, and returns the exit code."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: write_tables(args.tables) if args.tables is not None else _run(args))


def _run(args: argparse.Namespace) -> None:
    console = Console()
    bench = Bench(args.out, args.work, examples=args.examples, evaluations=args.evaluations, console=console)
    parts = PARTS if args.only is None else (args.only,)
    end = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    run_parts(bench, parts, args.nets, args.draw, end)
    if models(load_all(args.out)):
        write_tables(args.out)
        console.line(f"tables: {args.out / 'table.md'}")


def run_parts(
    bench: Bench, parts: Sequence[BenchmarkPart], depths: Sequence[int], draw: int, end_s: float | None
) -> None:
    """Runs the cells of the parts, and then times the models if `latency` is one of the parts.

    depths: the networks, by their depth.
    draw: which draw of training images the choices are made on.
    end_s: no cell is started after this time of `time.monotonic`; None sets no end.
    """
    cells = [key for part in parts for key in keys_of(part, depths, draw)]
    for number, key in enumerate(cells, 1):
        if _is_over(bench.console, end_s):
            return
        bench.console.line(f"[{number}/{len(cells)}] {key.place}: {bench.do(key)}")
    timed = list(_to_time(bench, depths, draw)) if "latency" in parts else []
    for number, key in enumerate(timed, 1):
        if _is_over(bench.console, end_s):
            return
        bench.console.line(f"timing [{number}/{len(timed)}] {key.place}: {bench.time(key)}")


def _to_time(bench: Bench, depths: Sequence[int], draw: int) -> Iterator[CellKey]:
    """Yields the models that are timed: those without fine-tuning, which changes no shape."""
    for key in models(load_all(bench.out)):
        if key.resource and key.seed is None and key.draw == draw and key.depth in depths:
            yield key


def _is_over(console: Console, end_s: float | None) -> bool:
    over = end_s is not None and time.monotonic() >= end_s
    if over:
        console.line("the time of --minutes is over; run the same command again to go on")
    return over


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.benchmarks.cifar10", description="Depth, width and both on CIFAR-10, beside controls."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="folder that cells, tables and figure are written to")
    where.add_argument(
        "--tables", type=Path, metavar="DIR", help="run nothing; write tables and figure from the cells in DIR"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=WORK,
        metavar="DIR",
        help="folder of runs and planner's tables (default: %(default)s)",
    )
    parser.add_argument(
        "--nets", type=int, nargs="+", choices=DEPTHS, default=DEPTHS, metavar="N",
        help="networks to run: 20, 32, 44 (default: all)",
    )  # fmt: skip
    parser.add_argument("--only", choices=PARTS, help="run this part alone (default: all parts)")
    parser.add_argument("--minutes", type=positive, metavar="N", help="start no cell after N minutes (default: no end)")
    parser.add_argument(
        "--draw", type=not_negative, default=0, metavar="N", help="which draw of training images is used (default: 0)"
    )
    parser.add_argument(
        "--examples", type=positive, default=512, metavar="N", help="score plans on N examples (default: %(default)s)"
    )
    parser.add_argument(
        "--evaluations", type=not_negative, default=EVALUATIONS, metavar="N",
        help="plans scored for one axis, six times as many for both (default: %(default)s); 0 uses the tables alone",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
