"""Holds the training loop: AdamW or SGD, warm-up + cosine, gradient clip, weight averaging, early stopping."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import nn

from toolkit.base.console import Console, Progress
from toolkit.base.errors import StageError
from toolkit.hooks.copies import copy_model
from toolkit.hooks.held import plain_values
from toolkit.hooks.memory import out_of_memory_named
from toolkit.hooks.modes import evaluating
from toolkit.hooks.tensors import model_sha256
from toolkit.hooks.trial import users_code
from toolkit.measure.results import Quality
from toolkit.tasks.task import Batch
from toolkit.training.checkpoint import FitCheckpoint, FitPoint, FitResult, FitState
from toolkit.training.start import Begun, judge_starting_point, keep_chosen
from toolkit.training.step import BrokenTrainingError, Loss, check_trainable, training_step, update_average


@dataclass(frozen=True)
class FitConfig:
    """Holds the settings of a training.

    max_steps, warmup_steps: numbers of optimiser steps.
    validate_every: number of steps between two validations.
    patience: number of validations without improvement after which training stops; None never stops it.
    gradient_clip: the largest norm of the gradient.
    ema_decay: decay of the averaged weights, which are the ones validated and kept; 0 turns averaging off.
    momentum: momentum of SGD; AdamW does not use it.
    select: which weights are kept: those of the best validation, or the last ones.
    """

    max_steps: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    validate_every: int
    patience: int | None = None
    gradient_clip: float = 1.0
    ema_decay: float = 0.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    select: Literal["best", "last"] = "best"

    @classmethod
    def of(cls, settings: BaseModel) -> FitConfig:
        """Returns the settings that a stage or a training configuration holds under the same names."""
        names = {field.name for field in fields(cls)} & type(settings).model_fields.keys()
        return cls(**{name: getattr(settings, name) for name in names})

    def identity(self) -> dict[str, Any]:
        """Returns the settings that identify a training; those of SGD only for SGD, as older checkpoints lack them."""
        settings = asdict(self)
        return (
            settings
            if self.optimizer == "sgd"
            else {k: v for k, v in settings.items() if k not in ("optimizer", "momentum")}
        )


@dataclass(frozen=True)
class Objective:
    """Says what a model is trained for.

    batches: endless training batches.
    loss: gives the loss of a model on a batch, which is minimised.
    validate: gives the quality of a model on validation data; larger is better.
    """

    batches: Iterator[Batch]
    loss: Loss
    validate: Callable[[nn.Module], Quality]


def fit(
    model: nn.Module,
    objective: Objective,
    config: FitConfig,
    *,
    judge_start: bool,
    console: Console,
    title: str,
    checkpoint: Path | None = None,
    checkpoint_every: int = 50,
) -> FitResult:
    """Trains `model` in place, and leaves it in eval mode with the weights that `config.select` says.

    judge_start: whether the model is a trained one, whose starting point is validated like every later step. With
        `select: best` the starting weights then stay, to the bit, unless a step is better, and a training that breaks
        ends with the best weights it had. Patience does not count the validation of the starting point.
    checkpoint: the file that keeps the state. If the same training left it, training continues from there, with the
        same result as if it had never stopped; batches already used are drawn and discarded. The caller removes it.
    checkpoint_every: the number of steps between two saves of the state.

    Raises:
        StageError: nothing can be trained, the loss or the validation is not a finite number and no starting weights
            are kept, or the checkpoint belongs to another training.
        UserError: the device is out of memory.
    """
    check_trainable(model)
    begun = Begun.of(model) if judge_start and config.select == "best" else None
    state = _begin(model, config)
    kept_state = None
    if checkpoint is not None:
        kept_state = FitCheckpoint(checkpoint, checkpoint_every, model_sha256(model, [config.identity(), judge_start]))
    if kept_state is not None and kept_state.load(state):
        console.line(f"{title}: continuing after step {state.result.steps}")
        _throw_away(objective.batches, state.result.steps)
    elif judge_start:
        judge_starting_point(state, objective.validate)
    with console.progress(title, config.max_steps) as progress:
        progress.advance(state.result.steps)
        while not state.finished:
            try:
                _go_on(state, objective, config, progress, title)
            except BrokenTrainingError as error:
                if begun is None:
                    raise StageError(f"{error}; lower learning_rate") from error
                state.result.stopped, state.result.failure, state.finished = "broken", str(error), True
            if kept_state is not None and (state.finished or state.result.steps % kept_state.every == 0):
                kept_state.save(state)
    keep_chosen(state, begun, config.select)
    model.eval()
    return state.result


def _size(batch: Batch) -> int:
    return len(batch.inputs[0])


def _begin(model: nn.Module, config: FitConfig) -> FitState:
    groups = _parameter_groups(model, config.weight_decay)
    optimiser: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimiser = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    else:
        optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
    average = copy_model(model).requires_grad_(False) if config.ema_decay else model
    return FitState(model, average, optimiser)


def _throw_away(batches: Iterator[Batch], count: int) -> None:
    """Draws and discards batches that were used before, and keeps the random state of the checkpoint."""
    random_state = torch.get_rng_state()
    for _ in range(count):
        _next(batches)
    torch.set_rng_state(random_state)


def _next(batches: Iterator[Batch]) -> Batch:
    with users_code("the training batches cannot be made"):
        batch = next(batches, None)
    if batch is None:
        raise StageError("the training batches have ended; train_batches of a task must be endless")
    return batch


def _go_on(state: FitState, objective: Objective, config: FitConfig, progress: Progress, title: str) -> None:
    """Takes one step, and validates if it is time to."""
    batch = _next(objective.batches)
    with out_of_memory_named(title, partial(_size, batch), "give a smaller batch_size"):
        _train_step(state, batch, objective.loss, config)
    progress.advance()
    if state.result.steps % config.validate_every == 0 or state.result.steps == config.max_steps:
        point = _validate(state, objective.validate, config)
        progress.note(f"loss {point.loss:.4f}, validation {point.validation:.4f}")


def _train_step(state: FitState, batch: Batch, loss: Loss, config: FitConfig) -> None:
    step = state.result.steps + 1
    _set_rate(state.optimiser, config, step)
    state.since_point.append(training_step(state.model, batch, loss, state.optimiser, config.gradient_clip))
    if config.ema_decay:
        update_average(state.average, state.model, min(config.ema_decay, step / (step + 10)))
    state.result.steps = step


def _validate(state: FitState, validate: Callable[[nn.Module], Quality], config: FitConfig) -> FitPoint:
    """Validates the averaged weights, notes them if they are the best, and says whether the training is finished."""
    result = state.result
    with evaluating(state.average):
        try:
            value = validate(state.average).value
        except StageError as error:
            raise BrokenTrainingError(f"after {result.steps} steps {error}") from error
    point = FitPoint(result.steps, sum(state.since_point) / len(state.since_point), value)
    result.curve.append(point)
    state.since_point = []
    if value > state.best_value:
        state.best_value, result.best_step = value, result.steps
        if config.select == "best":
            state.best_state, state.best_values = copy.deepcopy(state.average.state_dict()), plain_values(state.average)
    state.finished = result.steps == config.max_steps
    if config.patience and _validations_since_best(result) >= config.patience:
        state.finished, result.stopped = True, "patience"
    return point


def _validations_since_best(result: FitResult) -> int:
    """Returns how many validations followed the best one; the starting point is not one of them.

    A good model may get worse for a while before it gets better than it was at the start.
    """
    best = max(result.curve, key=lambda point: point.validation)
    return sum(point.step > best.step for point in result.curve)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Returns the optimiser's groups, with weight decay on matrices and kernels only, as usual for transformers."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _set_rate(optimiser: torch.optim.Optimizer, config: FitConfig, step: int) -> None:
    """Sets the learning rate of a step: a linear warm-up, then a cosine down to a hundredth."""
    warmup = min(1.0, step / max(1, config.warmup_steps))
    progress = max(0.0, (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps))
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * warmup * cosine
