"""python -m toolkit.searches TASK... --budget latency=0.5 --out DIR: the planner against random and greedy search.

All three score equally many models by the same criterion, those of the planner's tables included; what they find is
compared by the task's loss on validation data, before any fine-tuning. Resumable. Exit codes: 0 done; 2 something the
user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import toolkit
from toolkit.console import Console, plain_table
from toolkit.errors import UserError
from toolkit.plan import add_scoring_arguments, add_timing_arguments, positive
from toolkit.planning.budget import Budget, parse_limits
from toolkit.planning.controls import greedy_search, random_search
from toolkit.planning.search import EVALUATIONS, Found, Scorer
from toolkit.planning.tables import cost, dropped_in_order, widths_of
from toolkit.record import write_atomically
from toolkit.tasks import TASKS, ZOO, make_task
from toolkit.verb import exit_code

if TYPE_CHECKING:
    from toolkit.planning.session import Session

COLUMNS = ("task", "search", "seed", "models scored", "predicted cost", "criterion", "validation loss")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return exit_code(lambda: _compare(args))


def _compare(args: argparse.Namespace) -> None:
    console = Console()
    budget = Budget(limits=parse_limits(args.budget), batch_size=args.batch_size, threads=args.threads)
    unknown = [name for name in args.tasks if name not in TASKS or name == ZOO]
    if unknown:
        raise UserError(
            f"{unknown[0]!r} is not a known task; choose among: {', '.join(one for one in TASKS if one != ZOO)}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in args.tasks:
        session = toolkit.open_session(
            make_task(name),
            device=args.device,
            batch_sizes=(*args.batch_sizes, args.batch_size),
            threads=args.threads,
            folder=args.tables,
            examples=args.examples,
            criterion=args.criterion,
            scored_on=args.scored_on,
            console=console,
        )
        for row in _contest(session, budget, args.seeds, args.evaluations):
            rows.append(row)
            write_atomically(args.out / "searches.json", json.dumps(rows, indent=1) + "\n")
            console.line(f"{row['task']}, {row['search']}, seed {row['seed']}: {row['validation loss']:.4f}")
    table = plain_table(f"searches within {budget}", COLUMNS, [[_cell(row[key]) for key in COLUMNS] for row in rows])
    write_atomically(args.out / "searches.txt", table + "\n")
    console.line(table)


def _contest(session: Session, budget: Budget, seeds: int, planned_evaluations: int) -> list[dict[str, Any]]:
    tables = session.numbers.tables
    limits = budget.ratios(session.numbers.dense_latency_s(budget.batch_size))
    rows, evaluations = [], 0
    for seed in range(seeds):
        planned = session.plan(budget, "combined", planned_evaluations, timed=False, seed=seed)
        spent = session.numbers.num_single_changes + planned.note.evaluations
        evaluations = max(evaluations, spent)
        best = Found(planned.choice, planned.order, session.numbers.score(planned.choice, planned.order))
        rows.append(_row(session, budget, "planner", seed, spent, best))
    for seed in range(seeds):
        for name, search in (("random", random_search), ("greedy", greedy_search)):
            with session.numbers.console.progress(
                f"{session.numbers.task.name}: {name}, seed {seed}", evaluations
            ) as bar:

                def score(choice: Any, order: str, advance: Any = bar.advance) -> float:
                    advance()
                    return session.numbers.score(choice, order)

                scorer = Scorer(score)
                found = search(tables, limits, "combined", scorer, evaluations, seed)
            if found is None:  # greedy may end where nothing is left to cut
                session.numbers.console.line(f"{name}, seed {seed}: no plan within the budget")
                continue
            rows.append(_row(session, budget, name, seed, scorer.spent, found))
    return rows


def _row(session: Session, budget: Budget, search: str, seed: int, spent: int, found: Found) -> dict[str, Any]:
    tables = session.numbers.tables
    gone, widths = dropped_in_order(tables, found.choice), widths_of(tables, found.choice)
    return {
        "task": session.numbers.task.name,
        "search": search,
        "seed": seed,
        "models scored": spent,
        "predicted cost": cost(tables, found.choice, budget.resource_of(budget.primary)),
        "criterion": found.loss,
        "validation loss": session.numbers.split_loss(gone, widths, found.order, "validation"),
        "dropped": gone,
        "widths": {name: str(width) for name, width in widths.items()},
        "order": found.order,
    }


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.searches", description="Compare the planner with controls."
    )
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="such as tad-watch")
    add_timing_arguments(parser)
    add_scoring_arguments(parser)
    parser.add_argument("--budget", nargs="+", required=True, metavar="LIMIT", help="such as latency=0.5")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="of the latency that is limited")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="of each search (default 3)")
    parser.add_argument(
        "--evaluations",
        type=positive,
        default=EVALUATIONS,
        metavar="N",
        help="the planner's, for each family, beside its tables; the controls score as many models as both together",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="searches.json and searches.txt go there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
