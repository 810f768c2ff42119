"""python -m toolkit.train CONFIG --out DIR: trains a task's baseline, and keeps the weights with the best validation.

Exit codes: 0 done; 1 an unexpected error (with a traceback); 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.base.files import file_sha256, write_atomically
from toolkit.measure.environment import describe_environment
from toolkit.measure.results import Quality
from toolkit.recipe.check import check_task
from toolkit.recipe.read_settings import read_settings
from toolkit.tasks.baseline import RECORD_FILE, WEIGHTS_FILE, BaselinePoint, TrainConfig, TrainRecord
from toolkit.tasks.cards import make_task
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import Task
from toolkit.training.checkpoint import FitResult
from toolkit.training.fit import FitConfig, Objective, fit


def train(config: TrainConfig, task: Task, console: Console) -> tuple[torch.nn.Module, FitResult]:
    """Returns the task's model, trained from random weights that `config.seed` fixes, and how the training went."""
    torch.manual_seed(config.seed)
    model = task.build_model()
    result = fit(
        model,
        Objective(
            task.train_batches(config.batch_size, config.seed),
            lambda trained, batch: task.loss(trained(*batch.inputs), batch.targets),
            lambda trained: evaluate(task, trained, "validation"),
        ),
        FitConfig.of(config),
        judge_start=False,
        console=console,
        title=f"train {config.task}",
    )
    return model, result


def main(argv: Sequence[str] | None = None) -> int:
    """Trains a task's baseline and keeps the best weights, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    args = _parser().parse_args(argv)
    command = shlex.join(["python", "-m", "toolkit.train", *(sys.argv[1:] if argv is None else argv)])
    return exit_code(lambda: _train(args, command), "interrupted; nothing was kept")


def _train(args: argparse.Namespace, command: str) -> None:
    console = Console()
    config = read_train_config(args.config)
    _check_is_free(args.out)
    task = make_task(config.task)
    _check_data(task, config, args.test)
    _make_folder(args.out)
    started = time.perf_counter()
    model, result = train(config, task, console)
    seconds = time.perf_counter() - started
    validation = evaluate(task, model, "validation")
    test = evaluate(task, model, "test") if args.test else None
    record = TrainRecord(
        command=command,
        config=config,
        environment=describe_environment(),
        seconds=seconds,
        weights_sha256="",
        best_step=result.best_step,
        curve=tuple(BaselinePoint(step=p.step, loss=p.loss, validation=p.validation) for p in result.curve),
        validation=validation,
        test=test,
    )
    _save(args.out, model, record)
    console.line(f"trained in {seconds:.0f} s; best validation at step {result.best_step}")
    for quality in (validation, test):
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


def _save(folder: Path, model: torch.nn.Module, record: TrainRecord) -> None:
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    record = record.model_copy(update={"weights_sha256": file_sha256(folder / WEIGHTS_FILE)})
    write_atomically(folder / RECORD_FILE, record.model_dump_json(indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m toolkit.train", description="Train the baseline model of a task.")
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="settings in YAML, such as recipes/train/tad_watch.yaml"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="new or empty folder for weights and record"
    )
    parser.add_argument(
        "--test", action="store_true", help="also evaluate the test split, once, after training (default: no)"
    )
    return parser


def read_train_config(path: Path) -> TrainConfig:
    """Returns the training configuration in a YAML file, which is read as strictly as a recipe.

    Raises:
        RecipeError: the file has faults; the message holds all of them, with file and line.
    """
    return read_settings(path, TrainConfig, lambda config: check_task(config.task))[0]


if __name__ == "__main__":
    sys.exit(main())
