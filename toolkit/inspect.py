"""python -m toolkit.inspect MODEL: shows the blocks that can be dropped and the channels that can be cut, with costs.

MODEL is a task (tad-watch), a model of a zoo (timm/vit_tiny_patch16_224), or the folder of a run. A task of your own
comes from a Python file: --task FILE.py. With --check the command tries out whether the model can be compressed at all,
and says what is in the way. Exit codes: 0 done; 1 an unexpected error; 2 an error that the user can fix or, with
--check, something that is in the way of every run; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import toolkit
from reports.run.page import write_page
from toolkit.base.command import exit_code, positive
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data
from toolkit.preflight.arguments import add_model_arguments, zoo_arguments
from toolkit.preflight.words import show_preflight
from toolkit.record.run import RUN_FILE
from toolkit.redundancy.report import EXAMPLES, POSITIONS, REDUNDANCY_FILE
from toolkit.redundancy.words import show_redundancy
from toolkit.tasks.task_file import given_task_file

if TYPE_CHECKING:
    from torch import nn

    from toolkit.planning.profile.overview import Overview
    from toolkit.tasks.task import Task


def main(argv: Sequence[str] | None = None) -> int:
    """Shows what can be dropped and cut in a model, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    args = _parser().parse_args(argv)
    return exit_code(lambda: _inspect(args), "interrupted")


def _inspect(args: argparse.Namespace) -> int:
    if not args.redundancy and (args.examples or args.positions):
        raise UserError("--examples and --positions are for --redundancy; give it, or leave them out")
    arguments = zoo_arguments(args.arguments)
    name, task, model = toolkit.find_model(
        args.model, given_task_file(args), arguments=arguments, input_size=args.input_size
    )
    console = Console()
    if args.check:
        preflight = toolkit.preflight_of(task, model, name=name)
        _write(preflight, args.json)
        show_preflight(preflight, console)
        return 2 if preflight.in_the_way() else 0
    model = task.load_baseline() if model is None else model
    if args.redundancy:
        _redundancy(name, task, model, args, console)
        return 0
    costs = toolkit.overview(model, task.example_inputs(1), task.protected)
    _write(costs, args.json)
    _show(name, costs, console)
    return 0


def _redundancy(name: str, task: Task, model: nn.Module, args: argparse.Namespace, console: Console) -> None:
    examples, positions = args.examples or EXAMPLES, args.positions or POSITIONS
    report = toolkit.redundancy_of(task, model, name=name, console=console, examples=examples, positions=positions)
    show_redundancy(report, console)
    kept = Path(args.model) / REDUNDANCY_FILE if args.model and Path(args.model).is_dir() else None
    for file in {args.json, kept} - {None}:
        _write(report, file)
        if file.name == REDUNDANCY_FILE and (file.parent / RUN_FILE).exists():
            console.line(f"page: {write_page(file.parent)}")


def _write(content: Data, file: Path | None) -> None:
    if file is not None:
        write_atomically(file, content.model_dump_json(indent=1) + "\n")


def _show(name: str, costs: Overview, console: Console) -> None:
    partial = " (a partial count: see below)" if costs.partial else ""
    console.line(f"{name}: {costs.macs:,} MACs{partial}, {costs.num_params:,} parameters")
    rows = [
        [
            block.name,
            f"{block.macs:,}",
            "-" if block.macs_share is None else f"{block.macs_share:.3f}",
            f"{block.num_params:,}",
            f"{block.latency_share:.3f}",
        ]
        for block in costs.blocks
    ]
    latency = f"share of latency, batch {costs.batch_size}"
    console.table(f"{len(rows)} blocks that can be dropped", ["block", "MACs", "of all", "params", latency], rows)
    for block_name, reason in costs.not_dropped.items():
        console.line(f"not dropped: {block_name}: {reason}")
    rows = [
        [
            group.name,
            group.kind,
            str(group.units) if group.head_dim is None else f"{group.units} x {group.head_dim}",
            str(len(group.layers)),
            f"{group.num_params:,}",
            f"{group.latency_share:.3f}",
        ]
        for group in costs.groups
    ]
    columns = ["channels", "kind", "units", "layers", "their params", latency]
    console.table(f"{len(rows)} groups of channels that can be cut", columns, rows)
    for operator, calls in costs.partial.items():
        console.line(f"not counted: {operator} ({calls} calls), which may be heavy")
    for layer, reason in costs.not_cut.items():
        console.line(f"not cut: {layer}: {reason}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.inspect",
        description="Show the blocks that can be dropped, the channels that can be cut, and what each of them costs.",
    )
    add_model_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check",
        action="store_true",
        help="try out in seconds whether the model can be compressed, and say what is in the way (default: show costs)",
    )
    what.add_argument(
        "--redundancy",
        action="store_true",
        help="measure on the task's data what the outputs of convolutions repeat over channels and time "
        f"(default: show costs); for a run's folder it is also written to its {REDUNDANCY_FILE} and page",
    )
    parser.add_argument(
        "--examples",
        type=positive,
        metavar="N",
        help=f"examples of each of the splits calibration and holdout that --redundancy uses (default: {EXAMPLES})",
    )
    parser.add_argument(
        "--positions",
        type=positive,
        metavar="N",
        help=f"positions of each example in each layer that --redundancy uses, drawn at random (default: {POSITIONS})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what is shown to this file, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
