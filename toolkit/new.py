"""python -m toolkit.new task DIR: writes a commented task file and recipe that run as they are, to start from.

Exit codes: 0 done; 1 an unexpected error (with a traceback); 2 an error that the user can fix.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.base.command import exit_code
from toolkit.starters.registry import STARTERS
from toolkit.starters.starter import Starter


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files to start from, says what to do next, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    args = _parser().parse_args(argv)
    return exit_code(lambda: _new(STARTERS[args.kind], args.folder))


def _new(starter: Starter, folder: Path) -> None:
    starter.write(folder)
    for name in starter.files:
        print(f"written: {folder / name}")
    print("next:")
    for command in starter.commands(folder):
        print(f"  {command}")


def _parser() -> argparse.ArgumentParser:
    kinds = "; ".join(f"{name}: {starter.summary}" for name, starter in STARTERS.items())
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.new",
        description="Write commented files to start from, which run as they are on a small made-up model and data.",
    )
    parser.add_argument("kind", choices=tuple(STARTERS), metavar="KIND", help=f"what to start with: {kinds}")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder for the files, made where it is missing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
