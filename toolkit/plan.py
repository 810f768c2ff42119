"""python -m toolkit.plan TASK --budget latency=0.5 --out RECIPE: the best depth-and-width recipe within a budget.

Scores and timings are kept in --tables, so that another budget costs seconds. Exit codes: 0 done; 1 something
unexpected; 2 something the user can fix, such as a budget that no plan holds; 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import toolkit
from toolkit.console import Console
from toolkit.errors import UserError
from toolkit.planning.budget import Budget, parse_limits
from toolkit.planning.note import PlanNote
from toolkit.planning.search import EVALUATIONS, EXAMPLES
from toolkit.planning.solver import FAMILIES
from toolkit.planning.tables import CRITERIA, MACS, SCORED_ON, Group, latency_of
from toolkit.recipe_yaml import dump_recipe
from toolkit.record import write_atomically
from toolkit.stage_configs import Heads, Recover
from toolkit.tasks import TASKS, ZOO, make_task
from toolkit.verb import exit_code

if TYPE_CHECKING:  # the rest is imported when it is needed: torch takes seconds
    from toolkit.planning.session import Planned, Session


def main(argv: Sequence[str] | None = None) -> int:
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
        args.out.parent.mkdir(parents=True, exist_ok=True)  # before the work: it may not be allowed
    session = session_of(args, console)
    planned = session.plan(budget, args.family, args.evaluations)
    show_plan(planned, console)
    if args.out is not None:
        then = (Recover(max_steps=args.recover_steps),) if args.recover_steps else ()
        recipe = planned.recipe(then, seed=args.seed)
        write_atomically(args.out, _header(args.out, planned.note) + dump_recipe(recipe))
        console.line(f"recipe: {args.out}    (python -m toolkit.apply {args.out})")


def session_of(args: argparse.Namespace, console: Console) -> Session:
    """Of the arguments that `add_session_arguments` adds, and `add_scoring_arguments` where something is scored."""
    if args.task not in TASKS or args.task == ZOO:
        choices = ", ".join(name for name in TASKS if name != ZOO)
        raise UserError(f"{args.task!r} is not a known task; choose one of: {choices} (your own: toolkit.plan_recipe)")
    scoring = {name: getattr(args, name) for name in ("examples", "criterion", "scored_on") if name in args}
    sizes = (*args.batch_sizes, *([args.batch_size] if "batch_size" in args else []))
    return toolkit.open_session(
        make_task(args.task),
        device=args.device,
        batch_sizes=sizes,
        threads=args.threads,
        folder=args.tables,
        rebuild=args.rebuild,
        console=console,
        **scoring,
    )


def show_plan(planned: Planned, console: Console) -> None:
    """Block by block, then what is predicted of the whole."""
    note, tables = planned.note, planned.tables
    rows = []
    for block in tables.blocks:
        own = [group for group in tables.groups if group.block == block.name]
        gone = block.name in note.dropped
        cells = "dropped" if gone else ", ".join(_width(group, note) for group in own) or "kept"
        level = planned.choice.levels
        loss = block.loss if gone else sum(group.losses[level.get(group.name, 0)] for group in own)
        rows.append([block.name, cells, f"{loss:+.4f}"])
    elsewhere = [group for group in tables.groups if group.block is None]
    rows += [[group.name, _width(group, note), ""] for group in elsewhere]
    stream = tables.contexts[planned.choice.context]
    rows += [[name, f"{width} channels (stream)", f"{stream.loss:+.4f}"] for name, width in stream.widths.items()]
    console.table(f"{note.family}, {note.budget}: {note.order}", ["block", "what is left", "loss added alone"], rows)
    predicted = note.predicted
    console.line(f"predicted {MACS}: {predicted.macs_ratio:.3f} of dense; parameters: {predicted.params_ratio:.3f}")
    for size, ratio in predicted.latency_ratio.items():
        timed = note.measured_latency_ratio.get(size)
        measured = "" if timed is None else f"; the plan as timed: {timed:.3f}"
        console.line(f"predicted {latency_of(size)} on {note.device}: {ratio:.3f} of dense{measured}")
    applied = "not scored" if note.scored_loss is None else f"{note.scored_loss:.4f}"
    what = f"loss on {note.scored_on} data: dense {note.dense_loss:.4f}"
    if note.criterion == "distance":
        what = f"distance to the dense model's predictions on {note.scored_on} data: 0 is equal"
    console.line(
        f"{what}, the tables' sum {note.additive_loss:.4f}, the plan as applied {applied}; "
        f"{note.evaluations} plans scored, {note.seconds:.1f} s"
    )


def _width(group: Group, note: PlanNote) -> str:
    width = note.widths.get(group.name, group.widths[0])
    full = group.widths[0]
    name = group.name.removeprefix(f"{group.block}.")
    if isinstance(width, Heads) and isinstance(full, Heads):
        dims = f" of {width.head_dim}" if width.head_dim else ""
        return f"{name} {width.heads}/{full.heads} heads{dims}"
    return f"{name} {width}/{full}"


def _header(path: Path, note: PlanNote) -> str:
    latency = ", ".join(f"{ratio:.3f} at batch {size}" for size, ratio in note.predicted.latency_ratio.items())
    return (
        f"# Planned for {note.budget}: {note.family}, {note.device}, batch {note.batch_size}, {note.threads} threads.\n"
        f"# Command: python -m toolkit.apply {path}\n"
        f"# Predicted: {note.predicted.macs_ratio:.3f} of the dense MACs; latency {latency}\n"
    )


def add_session_arguments(parser: argparse.ArgumentParser) -> None:
    """What planning and profiling share."""
    parser.add_argument("task", metavar="TASK", help="such as tad-watch")
    add_timing_arguments(parser)
    parser.add_argument("--rebuild", action="store_true", help="score and time everything again")


def add_timing_arguments(parser: argparse.ArgumentParser) -> None:
    """How latency is measured, and where numbers are kept."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where latency is measured")
    parser.add_argument("--batch-sizes", type=positive, nargs="+", default=[1, 16], metavar="N", help="timed ones")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="default: 2")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="where numbers are kept (runs/tables)")


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """What plans are compared by."""
    parser.add_argument(
        "--examples", type=positive, default=EXAMPLES, metavar="N", help="to score and repair on (default: %(default)s)"
    )
    parser.add_argument(
        "--criterion",
        choices=CRITERIA,
        default=CRITERIA[0],
        help="what plans are compared by: the task's loss, or the distance to the dense model's predictions",
    )
    parser.add_argument(
        "--scored-on", choices=SCORED_ON, default=SCORED_ON[0], help="data of that; default: %(default)s"
    )


def positive(text: str) -> int:
    """For argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m toolkit.plan", description="Plan a recipe for a budget.")
    add_session_arguments(parser)
    add_scoring_arguments(parser)
    parser.add_argument(
        "--budget",
        nargs="+",
        required=True,
        metavar="WHAT=LIMIT",
        help="latency=0.5, latency=12ms, macs=0.6, params=0.4",
    )
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="of the latency that is limited")
    parser.add_argument("--family", choices=FAMILIES, default="combined", help="default: combined")
    parser.add_argument("--min-quality", type=_finite, metavar="X", help="floor on validation, before fine-tuning")
    parser.add_argument(
        "--evaluations",
        type=_not_negative,
        default=EVALUATIONS,
        metavar="N",
        help="plans scored for one axis, six times as many for both (default 2); 0: tables alone",
    )
    parser.add_argument("--recover-steps", type=_not_negative, default=300, metavar="N", help="fine-tuning; 0: none")
    parser.add_argument("--seed", type=_not_negative, default=0, metavar="N", help="of the recipe")
    parser.add_argument("--out", type=Path, metavar="RECIPE", help="write the recipe there, for toolkit.apply")
    return parser


if __name__ == "__main__":
    sys.exit(main())
