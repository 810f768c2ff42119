"""python -m toolkit.benchmarks.cuda.planned --device cuda --out DIR: plans for half of the latency, and times the plan.

The tables alone decide (no plan is scored end to end), so that the plans of two devices differ by their latencies.
Exit codes as of `toolkit.plan`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from toolkit.base.command import exit_code, positive
from toolkit.planning.budget import Budget, Limit
from toolkit.planning.profile.costs import REPEATS
from toolkit.planning.session import open_session
from toolkit.planning.settings import PlanSettings
from toolkit.tasks.cards import make_task
from toolkit.zoo.settings import ZooModel

SHARE = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return exit_code(lambda: _plan(args))


def _plan(args: argparse.Namespace) -> None:
    model = None if args.model is None else ZooModel.model_validate(json.loads(args.model))
    settings = PlanSettings(
        device=args.device,
        batch_sizes=(args.batch_size,),
        threads=args.threads,
        tables=args.out.parent / "tables",
        examples=args.examples,
        num_finalists=0,
        bypass=args.bypass,
    )
    planner = open_session(make_task(args.task, model), settings)
    timing = replace(planner.profile.timing, repeats=args.repeats)
    planner = replace(planner, profile=replace(planner.profile, timing=timing))
    limit = Limit(resource="latency", value=args.share)
    budget = Budget(limits=(limit,), batch_size=args.batch_size, threads=args.threads)
    planned = planner.plan(budget, "combined", evaluations=0)
    key = budget.latency_key(args.device)
    measured = planner.profile.measured_latency(planned.choice, key)
    args.out.mkdir(parents=True, exist_ok=True)
    planned.note.model_copy(update={"measured_latency_ratio": {key: measured}}).save(args.out)
    print(f"predicted {planned.note.predicted.latency_ratio[key]:.3f}, measured {measured:.3f} of the dense latency")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.benchmarks.cuda.planned", description="Plans for half of the latency."
    )
    parser.add_argument("--task", default="tad-watch", metavar="TASK", help="default: tad-watch")
    parser.add_argument("--model", metavar="JSON", help="of task zoo")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N")
    parser.add_argument("--share", type=float, default=SHARE, metavar="X", help="of the dense latency (default: 0.5)")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="of the CPU (default: 2)")
    parser.add_argument("--repeats", type=positive, default=REPEATS, metavar="N", help="samples of a timing")
    parser.add_argument("--no-bypass", action="store_false", dest="bypass", help="blocks are kept or dropped")
    parser.add_argument("--examples", type=positive, default=16, metavar="N", help="that changes are scored on")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="plan.json goes there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
