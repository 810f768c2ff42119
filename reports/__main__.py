"""`python -m reports RUN_DIR... [--out DIR]`: depth, width and combined runs and their Pareto fronts, side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.comparison import load_runs
from reports.comparison_page import write_comparison
from toolkit.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 something the user can fix (said in one message on stderr)."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder with the run.json of a finished run"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"), help="default: %(default)s")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        page = write_comparison(load_runs(arguments.runs, arguments.split), arguments.split, arguments.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{page}: {len(arguments.runs)} runs compared")
    return 0


if __name__ == "__main__":
    sys.exit(main())
