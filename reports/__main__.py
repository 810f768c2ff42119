"""`python -m reports RUN_DIR... [--out DIR]` compares runs of all families, and draws their Pareto fronts.

`python -m reports SWEEP_DIR` draws the fronts of a planner's sweep, and writes them into the folder of the sweep.
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
    """Writes the report of runs; returns the exit code: 0 if it is done, 2 after an error that the user can fix."""
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
    options = [name for name, value in (("--out", out), ("--split", split)) if value is not None]
    if options:
        raise UserError(
            f"{folder}: is a sweep, whose report is written into it and shows the test split; leave out {options[0]}"
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
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN_DIR",
        help="folders of finished runs (with run.json), or the folder of one planner's sweep",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder that the comparison of runs is written to (default: {DEFAULT_OUT}); not for a sweep",
    )
    parser.add_argument(
        "--split",
        choices=("test", "validation"),
        help="split whose quality the comparison of runs shows (default: test); not for a sweep",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
