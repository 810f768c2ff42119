"""python -m toolkit.profile TASK: times every block and width of a model on this device, for planning; resumable.

Exit codes: 0 done; 1 an unexpected error; 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import toolkit
from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.planning.arguments import add_session_arguments, given_task, settings_of
from toolkit.planning.tables import PlanCosts, latency_of
from toolkit.record.plan import removed_words


def main(argv: Sequence[str] | None = None) -> int:
    """Times every block and width of a model for planning, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.profile", description="Time every block and every width of a model, for planning."
    )
    add_session_arguments(parser)
    args = parser.parse_args(argv)
    return exit_code(lambda: _profile(args))


def _profile(args: argparse.Namespace) -> None:
    console = Console()
    task = given_task(args).task
    planner = toolkit.open_session(task, settings_of(args), console=console)
    tables = planner.profile.cost_tables
    full_width, keys = tables.contexts[0], planner.profile.timing.keys

    def row(name: str, costs: PlanCosts) -> list[str]:
        return [name, *(f"{costs[latency_of(key)]:.4f}" for key in keys)]

    rows = [row(name, costs) for name, costs in full_width.blocks.items()]
    rows.append(row("all else", full_width.rest))
    for block in tables.blocks:
        for bypass, costs in zip(block.bypasses, full_width.bypasses.get(block.name, ()), strict=True):
            rows.append(row(f"{block.name}, {removed_words(bypass.rank)}", costs))
    console.table("share of the dense model's latency", ["block", *(key.words for key in keys)], rows)
    console.line(f"tables: {planner.profile.folder}")


if __name__ == "__main__":
    sys.exit(main())
