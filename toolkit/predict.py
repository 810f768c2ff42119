"""python -m toolkit.predict RUN --out FILE: writes what the model of a run predicts for a split of its task's data.

A FILE.csv has one row per example, or per predicted segment; a FILE.json of segments has ActivityNet's form. Exit
codes: 0 done; 1 an unexpected error (with a traceback); 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import toolkit
from toolkit.base.command import check_is_new, exit_code
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.preflight.arguments import add_model_arguments, zoo_arguments
from toolkit.record.run import RUN_FILE, load_record
from toolkit.tasks.predictions import SUFFIXES
from toolkit.tasks.task_file import given_task_file


def main(argv: Sequence[str] | None = None) -> int:
    """Writes predictions, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    args = _parser().parse_args(argv)
    return exit_code(lambda: _predict(args), "interrupted; nothing was written")


def _predict(args: argparse.Namespace) -> None:
    if args.out.suffix not in SUFFIXES:
        raise UserError(f"--out {args.out}: must end with one of: {', '.join(SUFFIXES)}")
    check_is_new(args.out)
    console, file = Console(), given_task_file(args)
    arguments = zoo_arguments(args.arguments)
    _, task, model = toolkit.find_model(args.model, file, arguments=arguments, input_size=args.input_size)
    if file is not None and args.model is not None and (Path(args.model) / RUN_FILE).exists():
        begun = load_record(Path(args.model)).recipe.own_task
        if begun is not None and begun.is_other_than(file.origin):
            console.line(f"the run was made with {begun.in_words()}; {file.path} differs, and may give other data")
    found = toolkit.predictions_of(task, task.load_baseline() if model is None else model, args.split)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found.write(args.out)
    console.line(f"predictions: {args.out}    ({len(found.rows)} rows for the {args.split} split)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.predict",
        description="Write what a model predicts for a split of its task's data. MODEL is mostly the folder of a run; "
        "the name of a task stands for its unmodified model.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        required=True,
        help="new file: .csv, or .json in ActivityNet's form for tasks that predict segments",
    )
    parser.add_argument(
        "--split", choices=("validation", "test"), default="test", help="split to predict (default: test)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
