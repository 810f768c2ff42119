"""Trains the baseline of a task from random weights, and writes the best weights beside the record of the training."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from toolkit.base.console import Console
from toolkit.base.files import file_sha256, write_atomically
from toolkit.measure.environment import describe_environment
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import Task
from toolkit.tasks.training_record import RECORD_FILE, WEIGHTS_FILE, BaselinePoint, TrainConfig, TrainRecord
from toolkit.training.checkpoint import FitResult
from toolkit.training.fit import FitConfig, Objective, fit


def train_baseline(
    config: TrainConfig,
    task: Task,
    folder: Path,
    *,
    with_test: bool = False,
    command: str = "",
    console: Console | None = None,
) -> TrainRecord:
    """Trains the task's model, writes weights and record to an existing folder, and returns the record.

    with_test: whether the test split is evaluated, once, after the training.
    command: the command line that asked for the training, for the record.
    """
    started = time.perf_counter()
    model, result = _trained(config, task, console or Console())
    seconds = time.perf_counter() - started
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    record = TrainRecord(
        command=command,
        config=config,
        environment=describe_environment(),
        seconds=seconds,
        weights_sha256=file_sha256(folder / WEIGHTS_FILE),
        best_step=result.best_step,
        curve=tuple(BaselinePoint(step=p.step, loss=p.loss, validation=p.validation) for p in result.curve),
        validation=evaluate(task, model, "validation"),
        test=evaluate(task, model, "test") if with_test else None,
    )
    write_atomically(folder / RECORD_FILE, record.model_dump_json(indent=1) + "\n")
    return record


def _trained(config: TrainConfig, task: Task, console: Console) -> tuple[torch.nn.Module, FitResult]:
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
