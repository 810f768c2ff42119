"""python -m toolkit.plan TASK --budget latency=0.5 --out RECIPE: finds the best recipe of cuts within a budget.

Scores and timings are kept in --tables, so that another budget costs seconds. Exit codes: 0 done; 1 an unexpected
error; 2 an error that the user can fix, such as a budget that no plan holds; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import toolkit
from toolkit.base.command import check_is_new, exit_code, not_negative
from toolkit.base.console import Console
from toolkit.base.files import write_atomically
from toolkit.planning.arguments import (
    DESCRIPTION,
    add_plan_arguments,
    add_scoring_arguments,
    add_session_arguments,
    given_task,
    settings_of,
)
from toolkit.planning.budget import Budget, parse_limits
from toolkit.planning.tables import MACS, PlanGroup
from toolkit.recipe.read import dump_recipe
from toolkit.record.plan import PlanRecord, removed_words
from toolkit.stages.channel_prune.settings import Heads
from toolkit.stages.recover.settings import Recover

if TYPE_CHECKING:
    from toolkit.planning.planned import Planned


def main(argv: Sequence[str] | None = None) -> int:
    """Finds the best recipe within a budget, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    args = _parser().parse_args(argv)
    return exit_code(lambda: _plan(args))


def _plan(args: argparse.Namespace) -> None:
    console = Console()
    budget = Budget(
        limits=parse_limits(args.budget),
        batch_size=args.batch_size,
        threads=args.threads,
        min_quality=args.min_quality,
    )
    if args.out is not None:
        check_is_new(args.out)
        args.out.parent.mkdir(parents=True, exist_ok=True)  # before the work: it may not be allowed
    given = given_task(args)
    planner = toolkit.open_session(given.task, settings_of(args).timed_for([budget]), console=console)
    recover = Recover(max_steps=args.recover_steps) if args.recover_steps else None
    planned = planner.plan(budget, args.family, args.evaluations, recover=recover)
    show_plan(planned, console)
    if args.out is not None:
        recipe = given.in_recipe(planned.recipe(() if recover is None else (recover,), seed=args.seed), args.out)
        command = f"python -m toolkit.apply {args.out}{'' if args.task_file is None else f' --task {args.task_file}'}"
        write_atomically(args.out, _header(command, planned.note) + dump_recipe(recipe))
        console.line(f"recipe: {args.out}    ({command})")


def show_plan(planned: Planned, console: Console) -> None:
    """Shows a plan block by block, then what is predicted of the whole model."""
    note, tables = planned.note, planned.tables
    rows = []
    for block in tables.blocks:
        block_groups = [group for group in tables.groups if group.block == block.name]
        is_dropped = block.name in note.dropped
        levels, bypass_index = planned.choice.levels, planned.choice.bypassed.get(block.name)
        cells = ", ".join(_width(group, note) for group in block_groups) or "kept"
        loss = sum(group.losses[levels.get(group.name, 0)] for group in block_groups)
        if is_dropped:
            cells = removed_words(note.bypassed.get(block.name))
            loss = block.loss if bypass_index is None else block.bypasses[bypass_index].loss
        rows.append([block.name, cells, f"{loss:+.4f}"])
    elsewhere = [group for group in tables.groups if group.block is None]
    rows += [[group.name, _width(group, note), ""] for group in elsewhere]
    stream = tables.contexts[planned.choice.context]
    rows += [[name, f"{width} channels (stream)", f"{stream.loss:+.4f}"] for name, width in stream.widths.items()]
    console.table(f"{note.family}, {note.budget}: {note.order}", ["block", "what is left", "loss added alone"], rows)
    predicted = note.predicted
    macs = "not known" if predicted.macs_ratio is None else f"{predicted.macs_ratio:.3f} of dense"
    console.line(f"predicted {MACS}: {macs}; parameters: {predicted.params_ratio:.3f}")
    for key, ratio in predicted.latency_ratio.items():
        measured_ratio = note.measured_latency_ratio.get(key)
        measured = "" if measured_ratio is None else f"; the plan as timed: {measured_ratio:.3f}"
        console.line(f"predicted latency@{key.batch_size} on {key.where}: {ratio:.3f} of dense{measured}")
    applied = "not scored" if note.scored_loss is None else f"{note.scored_loss:.4f}"
    judged = "" if note.judged_loss is None else f", on fresh data {note.judged_loss:.4f}"
    score_meaning = f"loss on {note.scored_on} data: dense {note.dense_loss:.4f}"
    if note.criterion == "distance":
        score_meaning = f"distance to the dense model's predictions on {note.scored_on} data: 0 is equal"
    console.line(
        f"{score_meaning}, the tables' sum {note.additive_loss:.4f}, the plan as applied {applied}{judged}; "
        f"{note.evaluations} plans scored, {note.seconds:.1f} s"
    )


def _width(group: PlanGroup, note: PlanRecord) -> str:
    width = note.widths.get(group.name, group.widths[0])
    full = group.widths[0]
    name = group.name.removeprefix(f"{group.block}.")
    if isinstance(width, Heads) and isinstance(full, Heads):
        dims = f" of {width.head_dim}" if width.head_dim else ""
        return f"{name} {width.heads}/{full.heads} heads{dims}"
    return f"{name} {width}/{full}"


def _header(command: str, note: PlanRecord) -> str:
    latencies = [
        f"{ratio:.3f} at batch {key.batch_size}" + ("" if key.where == note.device else f" on {key.where}")
        for key, ratio in note.predicted.latency_ratio.items()
    ]
    macs = [] if note.predicted.macs_ratio is None else [f"{note.predicted.macs_ratio:.3f} of the dense MACs"]
    latency = [f"latency {', '.join(latencies)}"] if latencies else []
    return (
        f"# Planned for {note.budget}: {note.family}, {note.device}, batch {note.batch_size}, {note.threads} threads.\n"
        f"# Command: {command}\n"
        f"# Predicted: {'; '.join([*macs, *latency]) or 'nothing'}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m toolkit.plan", description=DESCRIPTION)
    add_session_arguments(parser)
    add_scoring_arguments(parser)
    add_plan_arguments(parser)
    parser.add_argument(
        "--recover-steps",
        type=not_negative,
        default=300,
        metavar="N",
        help="fine-tuning steps in the recipe; 0: none (default: 300)",
    )
    parser.add_argument(
        "--seed", type=not_negative, default=0, metavar="N", help="random seed in the recipe (default: 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="RECIPE",
        help="write the recipe to this new file, for toolkit.apply (default: only show the plan)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
