"""python -m toolkit.benchmarks.searches TASK... --budget latency=0.5 --out DIR: compares the planner with two controls.

All three score the same number of models by the same criterion; those of the planner's tables are counted. Their best
plans are compared by the task's loss on validation data, before any fine-tuning. The same command goes on after an
interruption. Exit codes: 0 done; 2 something the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.base.command import exit_code, positive
from toolkit.base.console import Console, plain_table
from toolkit.base.files import write_atomically
from toolkit.planning.arguments import add_scoring_arguments, add_timing_arguments, check_tasks, settings_of
from toolkit.planning.budget import Budget, parse_limits
from toolkit.planning.search.controls import greedy_search, random_search
from toolkit.planning.search.refine import EVALUATIONS, BestPlan, CountingScorer
from toolkit.planning.session import Planner, open_session
from toolkit.planning.tables import cost, drops_of, widths_of
from toolkit.tasks.cards import make_task

COLUMNS = ("task", "search", "seed", "models scored", "predicted cost", "criterion", "validation loss")


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the planner with two controls, and returns the exit code."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _compare(args))


def _compare(args: argparse.Namespace) -> None:
    console = Console()
    budget = Budget(limits=parse_limits(args.budget), batch_size=args.batch_size, threads=args.threads)
    check_tasks(args.tasks)
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in args.tasks:
        session = open_session(make_task(name), settings_of(args), console=console)
        for row in _contest(session, budget, args.seeds, args.evaluations):
            rows.append(row)
            write_atomically(args.out / "searches.json", json.dumps(rows, indent=1) + "\n")
            console.line(f"{row['task']}, {row['search']}, seed {row['seed']}: {row['validation loss']:.4f}")
    table = plain_table(f"searches within {budget}", COLUMNS, [[_cell(row[key]) for key in COLUMNS] for row in rows])
    write_atomically(args.out / "searches.txt", table + "\n")
    console.line(table)


def _contest(session: Planner, budget: Budget, seeds: int, planned_evaluations: int) -> list[dict[str, Any]]:
    tables = session.profile.tables
    device = session.profile.timing.device.type
    limits = budget.ratios(device, session.profile.dense_latency_s(budget.latency_key(device)))
    rows, evaluations = [], 0
    for seed in range(seeds):
        planned = session.plan(budget, "combined", planned_evaluations, timed=False, seed=seed)
        spent = session.profile.num_single_changes + planned.note.evaluations
        evaluations = max(evaluations, spent)
        best = BestPlan(planned.choice, planned.order, session.profile.score(planned.choice, planned.order))
        rows.append(_row(session, budget, "planner", seed, spent, best))
    for seed in range(seeds):
        for name, search in (("random", random_search), ("greedy", greedy_search)):
            with session.profile.console.progress(
                f"{session.profile.task.name}: {name}, seed {seed}", evaluations
            ) as bar:

                def score(choice: Any, order: str, advance: Any = bar.advance) -> float:
                    advance()
                    return session.profile.score(choice, order)

                scorer = CountingScorer(score)
                best_plan = search(tables, limits, "combined", scorer, evaluations, seed)
            if best_plan is None:  # the greedy search may end where nothing is left to cut
                session.profile.console.line(f"{name}, seed {seed}: no plan within the budget was found")
                continue
            rows.append(_row(session, budget, name, seed, scorer.spent, best_plan))
    return rows


def _row(session: Planner, budget: Budget, search: str, seed: int, spent: int, best: BestPlan) -> dict[str, Any]:
    tables = session.profile.tables
    drops, widths = drops_of(tables, best.choice), widths_of(tables, best.choice)
    resource = budget.resource_of(budget.primary, session.profile.timing.device.type)
    return {
        "task": session.profile.task.name,
        "search": search,
        "seed": seed,
        "models scored": spent,
        "predicted cost": cost(tables, best.choice, resource),
        "criterion": best.loss,
        "validation loss": session.profile.split_loss(drops, widths, best.order, "validation"),
        "dropped": list(drops),
        "bypassed": {name: rank for name, rank in drops.items() if rank is not None},
        "widths": {name: str(width) for name, width in widths.items()},
        "order": best.order,
    }


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.benchmarks.searches", description="Compare the planner with controls."
    )
    parser.add_argument(
        "tasks", nargs="+", metavar="TASK", help="names of tasks that bring their own model, such as tad-watch"
    )
    add_timing_arguments(parser)
    add_scoring_arguments(parser)
    parser.add_argument(
        "--budget", nargs="+", required=True, metavar="LIMIT", help="limits that all hold, such as latency=0.5"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=16,
        metavar="N",
        help="examples per call of the latency that is limited (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=positive, default=3, metavar="N", help="run each search with N seeds (default: %(default)s)"
    )
    parser.add_argument(
        "--evaluations",
        type=positive,
        default=EVALUATIONS,
        metavar="N",
        help="plans that the planner scores for one axis, six times as many for both (default: %(default)s); the "
        "controls score as many models as the planner does with its tables",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for searches.json and searches.txt"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
