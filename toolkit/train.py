"""python -m toolkit.train CONFIG --out DIR: trains a task's baseline, and keeps the weights with the best validation.

Exit codes: 0 done; 1 an unexpected error (with a traceback); 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import toolkit
from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.base.errors import Fault, UserError
from toolkit.measure.results import Quality
from toolkit.recipe.check import check_own_task, check_same_task, check_task
from toolkit.recipe.read_settings import read_settings
from toolkit.tasks.cards import make_task
from toolkit.tasks.task_file import add_task_file_argument, given_task_file
from toolkit.tasks.training_record import TrainConfig

if TYPE_CHECKING:
    from toolkit.tasks.task import Task


def main(argv: Sequence[str] | None = None) -> int:
    """Trains a task's baseline and keeps the best weights, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    args = _parser().parse_args(argv)
    command = shlex.join(["python", "-m", "toolkit.train", *(sys.argv[1:] if argv is None else argv)])
    return exit_code(lambda: _train(args, command), "interrupted; nothing was kept")


def _train(args: argparse.Namespace, command: str) -> None:
    console = Console()
    file = given_task_file(args)
    config = read_train_config(args.config, is_own_task=file is not None)
    _check_is_free(args.out)
    task = make_task(config.task) if file is None else file.make()
    if file is not None:
        check_same_task(config.task, task.name, str(args.config))
    _check_data(task, config, args.test)
    _make_folder(args.out)
    record = toolkit.train_baseline(config, task, args.out, with_test=args.test, command=command, console=console)
    console.line(f"trained in {record.seconds:.0f} s; best validation at step {record.best_step}")
    for quality in (record.validation, record.test):
        if quality is not None:
            console.line(describe(quality))
    console.line(f"weights and record: {args.out}")


def _check_is_free(folder: Path) -> None:
    """Raises UserError where the folder holds something, or is a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder}: exists already and is not an empty folder; choose another one")


def _check_data(task: Task, config: TrainConfig, with_test: bool) -> None:
    """Reads a batch of every split that is used, so that a task without its data says so before anything is made."""
    next(iter(task.train_batches(config.batch_size, config.seed)))
    next(iter(task.batches("validation", 1, limit=1)))
    if with_test:
        next(iter(task.batches("test", 1, limit=1)))


def _make_folder(folder: Path) -> None:
    """Makes the folder before the training: one that cannot be made must not cost the trained weights.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.filename}: {error.strerror}; choose another folder") from error


def describe(quality: Quality) -> str:
    """Returns the metric, its interval and its details as one line of text."""
    interval = (
        "" if quality.interval is None else f" (95 % bootstrap {quality.interval[0]:.3f} to {quality.interval[1]:.3f})"
    )
    details = ", ".join(f"{name} {value:.3f}" for name, value in quality.details.items())
    return f"{quality.metric} on {quality.split}: {quality.value:.4f}{interval}; {details}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m toolkit.train", description="Train the baseline model of a task.")
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="settings in YAML, such as recipes/train/tad_watch.yaml"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="new or empty folder for weights and record"
    )
    add_task_file_argument(parser)
    parser.add_argument(
        "--test", action="store_true", help="also evaluate the test split, once, after training (default: no)"
    )
    return parser


def read_train_config(path: Path, is_own_task: bool = False) -> TrainConfig:
    """Returns the training configuration in a YAML file, which is read as strictly as a recipe.

    is_own_task: whether its task is the user's own.

    Raises:
        RecipeError: the file has faults; the message holds all of them, with file and line.
    """

    def faults(config: TrainConfig) -> list[Fault]:
        return check_own_task(config.task) if is_own_task else check_task(config.task)

    return read_settings(path, TrainConfig, faults)[0]


if __name__ == "__main__":
    sys.exit(main())
