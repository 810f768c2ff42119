"""python -m toolkit.profile TASK: time every block and width of a model on this device, for planning; resumable.

Exit codes: 0 done; 2 something the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import toolkit
from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.planning.arguments import add_session_arguments, check_tasks, settings_of
from toolkit.planning.tables import latency_of
from toolkit.tasks.cards import make_task


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.profile", description="Time a model's blocks and widths, for planning."
    )
    add_session_arguments(parser)
    args = parser.parse_args(argv)
    return exit_code(lambda: _profile(args))


def _profile(args: argparse.Namespace) -> None:
    console = Console()
    check_tasks([args.task])
    planner = toolkit.open_session(make_task(args.task), settings_of(args), console=console)
    first = planner.profile.cost_tables.contexts[0]
    keys = planner.profile.timing.keys
    rows = [[name, *(f"{costs[latency_of(key)]:.4f}" for key in keys)] for name, costs in first.blocks.items()]
    rows.append(["all else", *(f"{first.rest[latency_of(key)]:.4f}" for key in keys)])
    console.table("share of the dense model's latency", ["block", *(key.words for key in keys)], rows)
    console.line(f"tables: {planner.profile.folder}")


if __name__ == "__main__":
    sys.exit(main())
