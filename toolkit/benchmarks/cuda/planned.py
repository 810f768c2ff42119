"""python -m toolkit.benchmarks.cuda.planned --device cuda --out DIR: plans for half of the latency, and times the plan.

Plans are found by the tables alone, and none is scored end to end, so that the plans of two devices differ only by
their latencies. The exit codes are those of `toolkit.plan`.
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
    """Runs the command with `argv` (None: the arguments of the process), and returns its exit code."""
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
        prog="python -m toolkit.benchmarks.cuda.planned", description="Plan for half of the latency, and time the plan."
    )
    parser.add_argument(
        "--task", default="tad-watch", metavar="TASK", help="name of a built-in task (default: %(default)s)"
    )
    parser.add_argument("--model", metavar="JSON", help="model of the task zoo, as in a recipe")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True, help="device to plan for and time on")
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="examples per call (default: 1)")
    parser.add_argument(
        "--share", type=float, default=SHARE, metavar="X", help="share of the dense latency (default: 0.5)"
    )
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="CPU threads (default: 2)")
    parser.add_argument(
        "--repeats", type=positive, default=REPEATS, metavar="N", help="samples per timing (default: %(default)s)"
    )
    parser.add_argument(
        "--no-bypass", action="store_false", dest="bypass", help="only keep or drop blocks (default: bypasses too)"
    )
    parser.add_argument(
        "--examples", type=positive, default=16, metavar="N", help="examples to score changes on (default: 16)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for plan.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
