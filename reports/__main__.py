"""`python -m reports RUN_DIR... [--out DIR]`: depth, width and combined runs and their Pareto fronts, side by side.

With the folder of a planner's sweep instead (`python -m reports SWEEP_DIR`), the fronts of its cells, into that folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.comparison.page import write_comparison
from reports.comparison.runs import load_runs
from reports.fronts.cells import holds_fronts, load_fronts
from reports.fronts.page import write_fronts
from toolkit.base.errors import UserError

DEFAULT_OUT = Path("runs/comparison")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 something the user can fix (said in one message on stderr)."""
    arguments = _parser().parse_args(argv)
    try:
        if len(arguments.runs) == 1 and holds_fronts(arguments.runs[0]):
            print(_fronts(arguments.runs[0], arguments.out, arguments.split))
        else:
            print(_comparison(arguments.runs, arguments.out or DEFAULT_OUT, arguments.split or "test"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _comparison(runs: Sequence[Path], out: Path, split: str) -> str:
    page = write_comparison(load_runs(runs, split), split, out)
    return f"{page}: {len(runs)} runs compared"


def _fronts(folder: Path, out: Path | None, split: str | None) -> str:
    given = [name for name, value in (("--out", out), ("--split", split)) if value is not None]
    if given:
        raise UserError(
            f"{folder} is a sweep, whose report goes into it and shows the test split: leave out {given[0]}"
        )
    fronts = load_fronts(folder)
    page = write_fronts(fronts, folder)
    return (
        f"{page}: {len(fronts.cells)} cells measured, {len(fronts.infeasible)} infeasible, "
        f"{len(fronts.not_run)} not run"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder with the run.json of a finished run, or a sweep's"
    )
    parser.add_argument("--out", type=Path, help=f"of a comparison of runs; default: {DEFAULT_OUT}")
    parser.add_argument("--split", choices=("test", "validation"), help="of a comparison of runs; default: test")
    return parser


if __name__ == "__main__":
    sys.exit(main())
