"""python -m toolkit.apply RECIPE: compresses a trained model as the recipe says, stage by stage, and shows the result.

Exit codes: 0 done; 1 an unexpected error (with a traceback); 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import toolkit
from reports.run.closing import how_to_load, show_closing
from reports.run.page import write_page
from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.base.errors import Fault, RecipeError, StageError
from toolkit.preflight.fits import check_fits
from toolkit.preflight.words import show_preflight
from toolkit.recipe.changes import add_change_arguments, changes_given
from toolkit.recipe.check import card_of, check_same_task
from toolkit.recipe.estimate import duration_text, estimate_s
from toolkit.recipe.given import see_files
from toolkit.recipe.read import dump_recipe, read_recipe
from toolkit.recipe.recipe import Recipe
from toolkit.recipe.yaml_nodes import Lines
from toolkit.record.run import RUN_FILE
from toolkit.tasks.task_file import TaskFile, add_task_file_argument, given_task_file

if TYPE_CHECKING:
    from toolkit.tasks.task import Task


def main(argv: Sequence[str] | None = None) -> int:
    """Compresses a model as a recipe says, shows the result, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.build and not args.check:
        parser.error("argument --build: goes with --check only; a run builds the model anyway")
    return exit_code(lambda: _apply(args), f"interrupted; continue with: {_resume_command(args)}")


def _apply(args: argparse.Namespace) -> int:
    file = given_task_file(args)
    recipe, lines = read_recipe(args.recipe, None if file is None else file.origin, changes_given(args))
    if args.check:
        notes = see_files(recipe, lines, args.recipe)
        is_built = args.build or notes is not None  # whoever names files of his own wants to know that they fit
        _show(recipe, notes or (), was_built=is_built)
        with _stages_placed(args.recipe, lines):
            return _preflight(recipe, file, args.recipe.parent) if is_built else 0
    task = None if file is None else file.make()
    _run(recipe, task, args.recipe, lines, args.out or Path("runs") / recipe.name, args.resume)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.apply",
        description="Apply a compression recipe to a trained model, measure after every stage, and write a report.",
        epilog="The recipes that come with the toolkit are listed in recipes/README.md.",
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe file in YAML, such as recipes/smoke.yaml")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder for all results (default: runs/<recipe name>)"
    )
    add_change_arguments(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the stopped run in --out after its last finished stage (default: start a new run)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only check the recipe, print it with all defaults and estimate its run time; nothing is run. Where the "
        "task names files of your own, look at them, and build the model as with --build",
    )
    parser.add_argument(
        "--build",
        action="store_true",
        help="with --check: also build the model and report, without a stage, what can be done with it; exit code 2 if "
        "something is in the way",
    )
    add_task_file_argument(parser)
    return parser


def _preflight(recipe: Recipe, file: TaskFile | None, folder: Path) -> int:
    """Builds the recipe's model, and prints what can be done with it; returns the exit code.

    Every line is printed as a comment, so that the whole output of the command is YAML.

    Raises:
        StageError: a stage drops more blocks than there are.
    """
    task = toolkit.make_task(recipe.task, recipe.model, folder) if file is None else file.make()
    check_same_task(recipe.task_name, task.name)
    preflight = toolkit.preflight_of(task)
    text = io.StringIO()
    show_preflight(preflight, Console(text, terminal=False))
    print("\n".join(f"# {line}".rstrip() for line in text.getvalue().splitlines()))
    check_fits(recipe, preflight)
    return 2 if preflight.in_the_way(trains=recipe.trains) else 0


def _show(recipe: Recipe, notes: Sequence[str], was_built: bool) -> None:
    """Prints the recipe with all defaults; notes and estimate are comments, so that the whole output is YAML."""
    card = card_of(recipe.task)
    seconds = None if card is None else estimate_s(recipe, card)
    duration = "depends on the model" if seconds is None else f"{duration_text(seconds)} on 2 idle CPU cores"
    sys.stdout.write(dump_recipe(recipe))
    not_done = "No stage was run" if was_built else "Nothing was run"
    print("".join(f"# {note}.\n" for note in notes), end="")
    print(f"# The recipe is valid. Estimated run time: {duration}. {not_done}.")


def _run(recipe: Recipe, task: Task | None, file: Path, lines: Lines, out: Path, resume: bool) -> None:
    console = Console()
    with _stages_placed(file, lines):
        record = toolkit.run(recipe, task=task, folder=file.parent, out=out, resume=resume, console=console)
    show_closing(record, console)
    console.line()
    console.line(f"run record:       {out / RUN_FILE}")
    console.line(f"compressed model: {out / 'model'}    ({how_to_load(record, out)})")
    console.line(f"report:           {write_page(out)}    (open it in a browser)")


@contextmanager
def _stages_placed(file: Path, lines: Lines) -> Iterator[None]:
    """Adds file and line to the error of a stage."""
    try:
        yield
    except StageError as error:
        if error.stage_index is None:
            raise
        place = ("stages", error.stage_index)
        raise RecipeError([Fault(place, str(error), lines.at(place))], file) from error


def _resume_command(args: argparse.Namespace) -> str:
    words = ["python", "-m", "toolkit.apply", str(args.recipe)]
    words += [] if args.out is None else ["--out", str(args.out)]
    words += [] if args.task_file is None else ["--task", args.task_file]
    for name in ("device", "seed"):
        words += [] if getattr(args, name) is None else [f"--{name}", getattr(args, name)]
    words += [word for change in args.changes for word in ("--set", change)]
    return shlex.join([*words, "--resume"])


if __name__ == "__main__":
    sys.exit(main())
